"""Serves a report, or all of a workspace, read-only over HTTP; with byte ranges, to seek in audio.

Python's own `http.server` command answers 200 to a Range request, and Chromium's player then falls
back to the start (research: currentTime 0 after a seek to 9 s). Nothing outside the folder is
served, links that lead out of it included; folders are not listed. The default address is loopback.
"""

import errno
import html
import re
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from storage.errors import PipelineError
from storage.layout import Layout

CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json; charset=utf-8",
    ".svg": "image/svg+xml",
    ".csv": "text/csv; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".tex": "text/plain; charset=utf-8",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
}
ONE_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
COPY_SIZE_BYTES = 64 * 1024


# What a request for an address names in a folder: a file, the text of a page, or nothing.
Find = Callable[[Path, str], Path | str | None]


@contextmanager
def serve(
    folder: Path, host: str = "127.0.0.1", port: int = 0, *, find: Find | None = None
) -> Generator[str]:
    """Serve a folder while the block runs.

    Args:
        folder: What to serve; may be made or replaced later.
        host: Address to listen on; another than loopback shows the folder to the network.
        port: Port; 0 takes a free one.
        find: What a request names; None: `find_file`. `find_report`: the folder is a workspace.

    Yields:
        The address of the folder, e.g. `http://127.0.0.1:8080/`.

    Raises:
        PipelineError: If the port is in use or may not be opened.
    """
    try:
        server = FolderServer((host, port), folder, find or find_file)
    except OSError as error:
        reason = (
            "is in use"
            if error.errno == errno.EADDRINUSE
            else f"cannot be opened ({error.strerror})"
        )
        msg = f"port {port} of {host} {reason}; stop what listens there or choose another port"
        raise PipelineError(msg) from error
    thread = threading.Thread(target=server.serve_forever, name="report-server", daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class FolderServer(ThreadingHTTPServer):
    """A server of one folder."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], folder: Path, find: Find) -> None:
        """Keep the folder beside the socket."""
        self.folder = folder
        self.find = find
        super().__init__(address, Handler)


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD; every other method is refused by the base class."""

    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        """Send a file or one range of it."""
        self._answer()

    def do_HEAD(self) -> None:
        """Send the headers of a GET."""
        self._answer()

    def _answer(self) -> None:
        server = self.server
        found = server.find(server.folder, self.path) if isinstance(server, FolderServer) else None
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            if isinstance(found, str):
                self._send_page(found.encode())
                return
            with found.open("rb") as file:
                self._send_file(file, found)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except OSError:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _send_page(self, page: bytes) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", CONTENT_TYPES[".html"])
        self.send_header("Content-Length", str(len(page)))
        self.send_header("Cache-Control", "no-cache")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(page)

    def _send_file(self, file: IO[bytes], path: Path) -> None:
        size = path.stat().st_size
        span = requested_range(self.headers.get("Range"), size)
        if span is None:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        first, last = span
        is_part = self.headers.get("Range") is not None and (first, last) != (0, size - 1)
        self.send_response(HTTPStatus.PARTIAL_CONTENT if is_part else HTTPStatus.OK)
        if is_part:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header(
            "Content-Type", CONTENT_TYPES.get(path.suffix.lower(), "application/octet-stream")
        )
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-cache")
        self.end_headers()
        if self.command == "GET":
            file.seek(first)
            _copy(file, self.wfile, last - first + 1)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  named by http.server
        """Say nothing: the terminal belongs to the pipeline."""


def find_file(folder: Path, target: str) -> Path | None:
    """The file that a request names inside a folder; None if there is none or it lies outside."""
    name = unquote(urlsplit(target).path, errors="replace")
    if "\0" in name or "\\" in name:
        return None
    try:
        root = folder.resolve(strict=True)
        path = (root / name.lstrip("/")).resolve(strict=True)
        if path.is_dir():
            path = (path / "index.html").resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    return path if path.is_relative_to(root) and path.is_file() else None


def find_report(workspace: Path, target: str) -> Path | str | None:
    """A file of an experiment's report, `/paper/index.html`, or at `/` their list; nothing else."""
    name = urlsplit(target).path.lstrip("/")
    experiment, slash, rest = name.partition("/")
    experiments = sorted(site.parents[1].name for site in workspace.glob("*/site/index.html"))
    if experiment in experiments and slash:  # without it, its relative links would lead astray
        return find_file(Layout(workspace, experiment).site, rest)
    return _list_reports(experiments) if name in {"", "index.html", *experiments} else None


def _list_reports(experiments: list[str]) -> str:
    names = [html.escape(name) for name in experiments]
    links = "".join(f'<li><a href="/{name}/">{name}</a></li>' for name in names)
    text = (
        f"<ul>{links}</ul>" if links else "<p>None yet: the pipeline's last stage writes one.</p>"
    )
    return (
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Reports</title>'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" '
        'content="light dark"><style>body{font:1.1rem/1.6 system-ui;margin:3rem}</style>'
        f"<h1>Reports</h1>{text}</html>"
    )


def requested_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte to send, inclusive; the whole file without a usable header.

    Returns:
        None if the range begins after the end of the file.
    """
    whole = (0, size - 1)
    match = ONE_RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return whole
    first_text, last_text = match.groups()
    if not first_text:
        length = int(last_text)
        return (max(0, size - length), size - 1) if length and size else None
    first = int(first_text)
    last = min(int(last_text), size - 1) if last_text else size - 1
    if last_text and int(last_text) < first:
        return whole
    return (first, last) if first < size else None


def _copy(source: IO[bytes], target: BufferedIOBase, num_bytes: int) -> None:
    while num_bytes > 0 and (block := source.read(min(COPY_SIZE_BYTES, num_bytes))):
        target.write(block)
        num_bytes -= len(block)
