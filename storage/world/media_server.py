"""A media server on loopback: files with byte ranges, and the faults that real sources have.

`GET /watch/<video id>` answers with the media file itself, which yt-dlp's generic extractor takes
for a direct link.
"""

from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from storage.errors import PipelineError
from storage.host.http_server import running

HOST = "127.0.0.1"

ServerFault = Literal["404", "403", "410", "truncated", "zero-bytes", "html", "html-as-audio"]

CONTENT_TYPES = {".m4a": "audio/mp4", ".webm": "audio/webm", ".mp4": "video/mp4"}

PAGE = b"<!doctype html><html><head><title>Before you continue</title></head></html>"


@dataclass(frozen=True, slots=True)
class ServedVideo:
    """What the server answers for one video."""

    path: Path | None
    fault: ServerFault | None


@contextmanager
def serve_media(videos: Mapping[str, ServedVideo], *, port: int) -> Generator[str]:
    """Serve videos by id on loopback while the block runs; any other id is 404.

    Gives the address, e.g. `http://127.0.0.1:8631`. Port 0 is any free one; PipelineError if the
    port is in use.
    """

    def answer(request: Request) -> ASGIApp:
        missing = ServedVideo(path=None, fault="404")
        return _answer(videos.get(request.path_params["video"], missing))

    with ExitStack() as stack:
        application = Starlette(routes=[Route("/watch/{video}", answer)])  # pyright: ignore[reportArgumentType]  an ASGI application is an answer too
        try:
            taken = stack.enter_context(running(application, HOST, port))
        except OSError as error:
            raise PipelineError(
                f"the demo's media server cannot listen on {HOST}:{port}: {error.strerror}; "
                f"stop what listens there, or take another port: --set world.port={port + 1}"
            ) from error
        yield f"http://{HOST}:{taken}"


def _answer(video: ServedVideo) -> ASGIApp:
    match video.fault:
        case "404" | "403" | "410":
            return Response(status_code=int(video.fault), media_type="text/plain")
        case "zero-bytes":
            return Response(media_type="audio/mp4", headers={"Accept-Ranges": "bytes"})
        case "html":
            return Response(PAGE, headers={"Content-Type": "text/html"})
        case "html-as-audio":
            return Response(PAGE, media_type="audio/mp4")
        case "truncated":
            return _truncated(cast("Path", video.path))
        case None:
            path = cast("Path", video.path)
            return FileResponse(path, media_type=CONTENT_TYPES[path.suffix])


def _truncated(path: Path) -> ASGIApp:
    """A third of what is promised, then the end; ranges are ignored, so that resuming fails too."""

    async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
        content = path.read_bytes()  # a few hundred kilobytes
        headers = [
            (b"content-type", CONTENT_TYPES[path.suffix].encode()),
            (b"content-length", str(len(content)).encode()),
            (b"accept-ranges", b"bytes"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        part = content[: len(content) // 3]
        # More is announced and never sent: the server closes the connection.
        await send({"type": "http.response.body", "body": part, "more_body": True})

    return answer
