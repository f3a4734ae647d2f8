"""Serves a report, or all of a workspace, read-only over HTTP; with byte ranges, to seek in audio.

Python's own `http.server` command answers 200 to a Range request, and Chromium's player then falls
back to the start (research: currentTime 0 after a seek to 9 s). Nothing outside the folder is
served, links that lead out of it included; folders are not listed. The default address is loopback,
and then only requests for this host by name are answered: a page of another site that has its own
name point here reads nothing.
"""

import errno
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from storage.errors import PipelineError
from storage.host.http_server import running
from storage.layout import CLIPS_FOLDER, Layout

LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
HEADERS = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
# Where Python guesses otherwise, or by the host's own table.
CONTENT_TYPES = {
    ".js": "text/javascript",
    ".json": "application/json",
    ".csv": "text/csv",
    ".md": "text/plain",
    ".tex": "text/plain",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
}

# What a path names in a folder: a file, the text of a page, or nothing.
Find = Callable[[Path, str], Path | str | None]


def find_file(folder: Path, name: str) -> Path | None:
    """The file that a path names inside a folder; None if there is none or it lies outside."""
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


@contextmanager
def serve(
    folder: Path, host: str = "127.0.0.1", port: int = 0, *, find: Find = find_file
) -> Generator[str]:
    """Serve a folder while the block runs.

    Args:
        folder: May be made or replaced later.
        host: Another than loopback shows the folder to the network.
        port: 0 takes a free one.
        find: What a request names; `find_report` where the folder is a workspace.

    Yields:
        The address of the folder, e.g. `http://127.0.0.1:8080/`.

    Raises:
        PipelineError: If the port is in use or may not be opened.
    """
    hosts = LOOPBACK if host in LOOPBACK else ("*",)
    application = Starlette(
        routes=[Route("/{path:path}", _answerer(folder, find))],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)],
    )
    with ExitStack() as stack:
        try:
            port = stack.enter_context(running(application, host, port))
        except OSError as error:
            is_taken = error.errno == errno.EADDRINUSE
            reason = "is in use" if is_taken else f"cannot be opened ({error.strerror})"
            msg = f"port {port} of {host} {reason}; stop what listens there or choose another port"
            raise PipelineError(msg) from error
        yield f"http://{host}:{port}/"


def _answerer(folder: Path, find: Find) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        found = find(folder, request.scope["path"])
        if found is None:
            return PlainTextResponse("not found", 404)
        if isinstance(found, str):
            return HTMLResponse(found, headers=HEADERS)
        # A Range in another unit than bytes is none (RFC 9110, section 14.2).
        request.scope["headers"] = [
            (name, value)
            for name, value in request.scope["headers"]
            if name != b"range" or value.startswith(b"bytes=")
        ]
        return FileResponse(
            found, headers=HEADERS, media_type=CONTENT_TYPES.get(found.suffix.lower())
        )

    return answer


def find_report(workspace: Path, name: str) -> Path | str | None:
    """A file of an experiment's report, `/paper/index.html`, a training clip's wav, or the list.

    The pages' links to clips lead out of the experiment's folder: to `/clips/-HG3Omg_89c_30.wav`.
    """
    name = name.lstrip("/")
    experiment, slash, rest = name.partition("/")
    experiments = sorted(site.parents[1].name for site in workspace.glob("*/site/index.html"))
    if experiment in experiments and slash:  # without it, its relative links would lead astray
        return find_file(Layout(workspace, experiment).site, rest)
    if CLIPS_FOLDER.fullmatch(experiment) and rest.endswith(".wav"):
        return find_file(workspace / experiment, rest)
    if name not in {"", "index.html", *experiments}:
        return None
    # Only this page needs the drawing and Jinja; a folder is served without.
    from reports.site.experiments import experiments_page  # noqa: PLC0415

    return experiments_page(workspace, experiments)
