"""A media server on loopback: files with byte ranges, and the faults that real sources have.

`GET /watch/<video id>` answers with the media file itself, which yt-dlp's generic extractor takes
for a direct link.
"""

import re
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Literal, cast
from urllib.parse import unquote, urlsplit

from storage.errors import PipelineError

HOST = "127.0.0.1"

ServerFault = Literal["404", "403", "410", "truncated", "zero-bytes", "html", "html-as-audio"]

CONTENT_TYPES = {".m4a": "audio/mp4", ".webm": "audio/webm", ".mp4": "video/mp4"}

PAGE = b"<!doctype html><html><head><title>Before you continue</title></head></html>"


@dataclass(frozen=True, slots=True)
class ServedVideo:
    """What the server answers for one video."""

    path: Path | None
    """Media file; None where the fault leaves nothing to send."""
    fault: ServerFault | None
    """What goes wrong; None: nothing."""


@contextmanager
def serve_media(videos: Mapping[str, ServedVideo], *, port: int) -> Generator[str]:
    """Serve while the `with` block runs, on loopback only.

    Args:
        videos: By video id; any other id is 404.
        port: Port to listen on; 0: any free one.

    Yields:
        The address without a final slash, e.g. `http://127.0.0.1:8631`.

    Raises:
        PipelineError: If the port is in use.
    """
    try:
        server = _MediaServer((HOST, port), _Handler)
    except OSError as error:
        msg = (
            f"the demo's media server cannot listen on {HOST}:{port}: {error.strerror}; "
            f"stop what listens there, or take another port: --set world.port={port + 1}"
        )
        raise PipelineError(msg) from error
    server.videos = videos
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _MediaServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    videos: Mapping[str, ServedVideo]

    def handle_error(self, request: object, client_address: object) -> None:
        """Tell of an error, but for a client that hangs up: a downloader that knows enough does."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # pyright: ignore[reportArgumentType]  typed too narrowly


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30.0  # seconds after which a connection left open is dropped

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name it has there
        """Say nothing: the fetch stage reports what it met."""

    def do_HEAD(self) -> None:
        """Answer with the headers alone."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer with a video's media or with its fault."""
        path = unquote(urlsplit(self.path).path)
        videos = cast("_MediaServer", self.server).videos
        video = videos.get(path.removeprefix("/watch/"), ServedVideo(path=None, fault="404"))
        match video.fault:
            case "404" | "403" | "410":
                self._send(b"", "text/plain", status=HTTPStatus(int(video.fault)))
            case "zero-bytes":
                self._send(b"", "audio/mp4")
            case "html":
                self._send(PAGE, "text/html")
            case "html-as-audio":
                self._send(PAGE, "audio/mp4")
            case "truncated" | None:
                self._send_media(cast("Path", video.path), is_truncated=video.fault is not None)

    def _send_media(self, path: Path, *, is_truncated: bool) -> None:
        content = path.read_bytes()  # a few hundred kilobytes
        content_type = CONTENT_TYPES[path.suffix]
        if is_truncated:  # ranges are ignored, so that resuming does not mend it
            self._send(content[: len(content) // 3], content_type, claimed_bytes=len(content))
            return
        range_header = self.headers.get("Range")
        if range_header is None:
            self._send(content, content_type)
            return
        wanted = _byte_range(range_header, size_bytes=len(content))
        if wanted is None:
            headers = {"Content-Range": f"bytes */{len(content)}"}
            status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            self._send(b"", "text/plain", status=status, headers=headers)
            return
        headers = {"Content-Range": f"bytes {wanted.start}-{wanted.stop - 1}/{len(content)}"}
        part = content[wanted.start : wanted.stop]
        self._send(part, content_type, status=HTTPStatus.PARTIAL_CONTENT, headers=headers)

    def _send(
        self,
        body: bytes,
        content_type: str,
        *,
        status: HTTPStatus = HTTPStatus.OK,
        headers: Mapping[str, str] | None = None,
        claimed_bytes: int | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(claimed_bytes or len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if claimed_bytes is not None:
            self.close_connection = True
        if self.command == "GET":
            try:
                self.wfile.write(body)
            except ConnectionError:  # the other side has seen enough, e.g. after its probe
                self.close_connection = True


def _byte_range(header: str, *, size_bytes: int) -> range | None:
    """The bytes that a Range header asks for; None if there are none (RFC 9110, section 14.1.2)."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip())
    if match is None or header.strip() == "bytes=-":
        return None
    first, last = match.groups()
    if not first:  # the last so many bytes
        wanted = range(max(0, size_bytes - int(last)), size_bytes)
    else:
        end = min(int(last) + 1, size_bytes) if last else size_bytes
        wanted = range(int(first), end)
    return wanted or None
