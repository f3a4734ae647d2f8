"""What a host must have before days of work begin: packages, room, ports, the hub or copies of it.

Each check returns findings; none raises for what it was made to find.
"""

import errno
import shutil
import socket
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import requests
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.utils import (
    build_hf_headers,  # pyright: ignore[reportUnknownVariableType]  partly typed
)
from packaging.requirements import Requirement

from storage.errors import network_cause

GB = 1e9
NETWORK_TIMEOUT_S = 15.0
YTDLP_STALE_DAYS = 90  # YouTube changes monthly; older ones begin to fail
CLOCK_TOLERANCE_S = 300.0  # beyond it TLS and signed media addresses are refused

Level = Literal["ok", "warning", "error"]
HubKind = Literal["model", "dataset"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the preflight."""

    level: Level
    """`error`: the work would fail; `warning`: it may."""
    subject: str
    """What was looked at, e.g. `disk`."""
    text: str
    """What was found and, unless all is well, what to do."""


def check_python(pyproject: Path) -> list[Finding]:
    """Every package that the project names, against the bounds it names them with."""
    wanted = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["dependencies"]
    wrong = [text for name in wanted if (text := _package_problem(Requirement(name)))]
    packages = Finding("ok", "packages", f"{len(wanted)} as pyproject.toml wants them")
    if wrong:
        text = f"{'; '.join(wrong)}: pip install -c constraints.txt -e ."
        packages = Finding("error", "packages", text)
    return [Finding("ok", "python", sys.version.split()[0]), packages]


def _package_problem(requirement: Requirement) -> str:
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is missing"
    if requirement.specifier.contains(installed, prereleases=True):
        return ""
    return f"{requirement.name} is {installed}, wanted {requirement.specifier}"


def check_ytdlp_age(installed: str, today: datetime) -> Finding:
    """How old yt-dlp is; its version is its date, e.g. `2026.10.26`."""
    year, month, day = (int(part) for part in installed.split(".")[:3])
    age_days = (today - datetime(year, month, day, tzinfo=UTC)).days
    if age_days <= YTDLP_STALE_DAYS:
        return Finding("ok", "yt-dlp", f"{installed}, {max(age_days, 0)} days old")
    text = (
        f"{installed} is {age_days} days old and YouTube changes monthly; if many videos fail with "
        "`unconfirmed`, try a newer one and run tests/storage first: its messages are matched"
    )
    return Finding("warning", "yt-dlp", text)


def check_writable(workspace: Path) -> list[Finding]:
    """Whether the workspace can be written."""
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=workspace, prefix=".preflight-") as file:
            file.write(b"x")
    except OSError as error:
        text = f"{workspace} cannot be written ({error.strerror}); choose another: --workspace DIR"
        return [Finding("error", "workspace", text)]
    return [Finding("ok", "workspace", f"{workspace} can be written")]


def check_disk(workspace: Path, needs: dict[str, float]) -> Finding:
    """Room on the workspace's disk for what is to come, in bytes by what they are for."""
    free, wanted = free_bytes(workspace), sum(needs.values())
    if not needs:
        return Finding("ok", "disk", f"{free / GB:.0f} GB free at {workspace}; little is wanted")
    parts = " + ".join(f"{name} {size / GB:.1f}" for name, size in needs.items())
    text = f"{free / GB:.0f} GB free at {workspace}; wanted {wanted / GB:.1f} GB ({parts})"
    if free < wanted:
        return Finding("error", "disk", f"{text}: free some, or choose another --workspace")
    if free < 1.2 * wanted:
        return Finding("warning", "disk", f"{text}: it will be tight")
    return Finding("ok", "disk", text)


def free_bytes(folder: Path) -> int:
    """Of the disk that a folder lies on, or would."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


def check_port(port: int, purpose: str, option: str) -> Finding:
    """Whether a loopback port can be opened."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                text = "is in use; well if by this project, else choose"
                return Finding("warning", "port", f"{port} ({purpose}) {text}: {option}")
            text = f"{port} ({purpose}) cannot be opened: {error.strerror}; choose: {option}"
            return Finding("error", "port", text)
    return Finding("ok", "port", f"{port} ({purpose}) is free")


def check_url(url: str, purpose: str, remedy: str, *, any_answer: bool = False) -> list[Finding]:
    """Whether an address answers, and whether its clock agrees with ours.

    With `any_answer` a refusal (401, 403, 404) is one: it is about this file, not the server.
    """
    try:
        response = requests.head(url, timeout=NETWORK_TIMEOUT_S, allow_redirects=True)
    except requests.RequestException as error:
        text = f"{url} ({purpose}) cannot be reached ({network_cause(error)}); {remedy}"
        return [Finding("error", "network", text)]
    if response.status_code >= (500 if any_answer else 400):
        text = f"{url} ({purpose}) answers {response.status_code}; {remedy}"
        return [Finding("warning" if any_answer else "error", "network", text)]
    found = [Finding("ok", "network", f"{url} ({purpose}) answers")]
    if date := response.headers.get("Date"):
        found.append(_check_clock(parsedate_to_datetime(date).timestamp(), url))
    return found


def _check_clock(theirs_s: float, url: str) -> Finding:
    offset_s = time.time() - theirs_s
    if abs(offset_s) <= CLOCK_TOLERANCE_S:
        return Finding("ok", "clock", f"within {max(abs(offset_s), 1):.0f} s of {url}")
    text = (
        f"{offset_s:+.0f} s off the clock of {url}; TLS and media addresses fail so: set it by NTP"
    )
    return Finding("error", "clock", text)


def check_hub(name: str, kind: HubKind, *, offline: bool, remedy: str) -> Finding:
    """Whether a model or data set can be had: a folder, a copy in the hub's cache, or the hub."""
    if Path(name).expanduser().exists():
        return Finding("ok", kind, f"{name} is a local folder")
    # Told by the file that each of its kind has.
    files = ("config.json",) if kind == "model" else ("README.md", ".gitattributes")
    if any(_cached(name, file, kind) for file in files):
        return Finding("ok", kind, f"{name} is in the hub's cache")
    problem = "is not on this host" if offline else _ask_hub(name, kind)
    if problem:
        return Finding("error", kind, f"{name} {problem}; {remedy}")
    return Finding("ok", kind, f"{name} is on the hub; downloaded on first use")


def _ask_hub(name: str, kind: HubKind) -> str:
    """Why the hub does not give it; empty if it does."""
    url = f"{constants.ENDPOINT}/api/{kind}s/{name}"
    try:
        response = requests.get(url, headers=build_hf_headers(), timeout=NETWORK_TIMEOUT_S)
    except requests.RequestException as error:
        return f"cannot be had: the hub does not answer ({network_cause(error)})"
    if response.status_code in {401, 403, 404}:
        return "is not on the hub, or closed to you (`hf auth login`)"
    if response.status_code >= 400:
        return f"cannot be had now: the hub answers {response.status_code}"
    return ""


def model_folder(name: str) -> Path | None:
    """Where a model's files lie on this host; None if they do not."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    config = _cached(name, "config.json", "model")
    return Path(config).parent if config else None


def _cached(name: str, file: str, kind: HubKind) -> str | None:
    path = try_to_load_from_cache(name, file, repo_type=kind) if name.count("/") == 1 else None
    return path if isinstance(path, str) else None
