"""A loopback server whose wire breaks in every way that real ones do, and media to serve.

`/CASE/NAME` answers with the file NAME as CASE says; every request is counted by its path.
"""

import os
import re
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import soundfile

from storage.host.ffmpeg import find_ffmpeg

MIME = {
    ".m4a": "audio/mp4",
    ".webm": "audio/webm",
    ".mp4": "video/mp4",
    ".wav": "audio/wav",
    ".json": "application/json",
    ".m3u8": "application/vnd.apple.mpegurl",
    ".ts": "video/mp2t",
    ".html": "text/html",
}
PAGE = b"<!doctype html><html><title>Before you continue</title></html>"
MARKER_RATE_HZ = 48_000


@dataclass
class Wire:
    """The running server."""

    base: str
    """Its address."""
    root: Path
    """The folder that is served."""
    requests: Counter[str] = field(default_factory=Counter)
    """Requests by path."""
    released: threading.Event = field(default_factory=threading.Event)
    """Set at the end, so that no stalled answer outlives the test."""


def marker_signal(seconds: int) -> np.ndarray:
    """Noise, fixed by its position: no two stretches are alike, so a cut's place can be found."""
    rng = np.random.default_rng(0)
    return 0.2 * rng.standard_normal(seconds * MARKER_RATE_HZ)


def make_media(folder: Path, *, seconds: int = 12) -> None:
    """Write the media that the tests serve."""
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / "marker.wav", marker_signal(seconds), MARKER_RATE_HZ)
    source = ["-i", str(folder / "marker.wav")]
    video = ["-f", "lavfi", "-i", f"color=size=64x48:rate=5:duration={seconds}"]
    _encode(folder / "marker.m4a", *source, "-c:a", "aac", "-b:a", "64k")
    _encode(folder / "marker.webm", *source, "-c:a", "libopus", "-b:a", "50k")
    _encode(folder / "marker.mp4", *video, *source, "-c:a", "aac", "-b:a", "64k")
    _encode(folder / "short.m4a", "-t", "4", *source, "-c:a", "aac")
    _encode(folder / "no-audio.mp4", *video)
    silence = ["-f", "lavfi", "-t", str(seconds), "-i", "anullsrc=sample_rate=48000"]
    _encode(folder / "silent.m4a", *silence, "-c:a", "aac")


def _encode(target: Path, *arguments: str) -> None:
    command = [find_ffmpeg(), "-v", "error", "-y", *arguments, "-movflags", "+faststart"]
    if target.suffix == ".webm":
        command = command[:-2]
    subprocess.run([*command, str(target)], check=True)


@contextmanager
def serve(root: Path) -> Iterator[Wire]:
    """Serve the files of a folder while the `with` block runs."""
    server = _Server(("127.0.0.1", 0), _Handler)
    wire = Wire(f"http://127.0.0.1:{server.server_address[1]}", root)
    server.root, server.wire = root, wire
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield wire
    finally:
        wire.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    root: Path
    wire: Wire

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up is nothing to tell."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name there
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:  # noqa: PLR0911  one case a line
        wire = self.server.wire
        address = urlsplit(self.path).path
        wire.requests[address] += 1
        case, _, name = address.strip("/").partition("/")
        if case.isdigit():
            headers = {"Retry-After": "7"} if case == "429" else {}
            return self._send(int(case), b"x", "text/plain", headers)
        if case == "every-seventh-404" and int(re.sub(r"\D", "", self.path)[-4:]) % 7 == 0:
            return self._send(404, b"x", "text/plain", {})
        if case == "429-once" and wire.requests[address] == 1:
            return self._send(429, b"x", "text/plain", {"Retry-After": "1"})
        if case == "503-twice" and wire.requests[address] <= 2:
            return self._send(503, b"x", "text/plain", {})
        if case == "zero-bytes":
            return self._send(200, b"", "audio/mp4", {})
        if case == "html-as-audio":
            return self._send(200, PAGE, "audio/mp4", {})
        if case == "html":
            return self._send(200, PAGE, "text/html", {})
        path = self.server.root / name
        if not path.is_file():
            return self._send(404, b"x", "text/plain", {})
        return self._media(case, path)

    def _media(self, case: str, path: Path) -> None:
        content = path.read_bytes()
        begin, end, status = 0, len(content), 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked and case != "no-range":
            begin = int(asked.group(1))
            end = min(end, int(asked.group(2)) + 1) if asked.group(2) else end
            status = 206
        headers = (
            {"Content-Range": f"bytes {begin}-{end - 1}/{len(content)}"} if status == 206 else {}
        )
        body = content[begin:end]
        self._head(status, len(body), MIME[path.suffix], headers)
        if self.command == "HEAD":
            return
        third = max(1, len(body) // 3)
        if case == "truncated":
            self.wfile.write(body[:third])
            self.close_connection = True
        elif case == "reset":
            self.wfile.write(body[:third])
            self.wfile.flush()
            linger = struct.pack("ii", 1, 0)  # close by RST
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            os.close(self.connection.detach())
            self.close_connection = True
        elif case == "stall":
            self.wfile.write(body[:third])
            self.wfile.flush()
            self.server.wire.released.wait(60)
        elif case == "drip":
            for position in range(0, len(body), 2048):
                self.wfile.write(body[position : position + 2048])
                self.wfile.flush()
                if self.server.wire.released.wait(0.25):  # 8 KiB/s
                    return
        else:
            self.wfile.write(body)

    def _send(self, status: int, body: bytes, mime: str, headers: dict[str, str]) -> None:
        self._head(status, len(body), mime, headers)
        if self.command == "GET":
            self.wfile.write(body)

    def _head(self, status: int, size: int, mime: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", mime)
        self.send_header("Content-Length", str(size))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def wait_until(condition, *, timeout_s: float = 20.0) -> None:
    """Wait for a condition of another thread or process."""
    give_up_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_s, "waited in vain"
        time.sleep(0.01)
