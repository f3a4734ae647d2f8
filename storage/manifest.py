"""What a unit of work (a stage, one training, ...) made, from what, and whether it still stands.

A manifest is written last, by rename, and holds a key (what decided the output) and a stamp of
every output file. The work is done when the key is the same and the stamps still match. (Prefect's
own result cache calls a task cached although its folder is gone.) A stamp is compared by size and
time first, as git's index does, and by content only where those differ.
"""

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from storage.errors import PipelineError
from storage.jsonl import append_line, read_appended, write_json

REMEMBERED_BYTES = 16 << 20  # smaller files are read again in no time
MAX_CHANGES = 4  # settings named in a reason
MAX_SHOWN = 40  # characters of a value that is shown


class Stamp(NamedTuple):
    """State of one output file when it was made."""

    size_bytes: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Commit record of one unit of work."""

    unit: str
    reasons: dict[str, str]
    """The key: the digest of each thing that decides the output."""
    outputs: dict[str, Stamp]
    """Stamp of each output file, by absolute path; written relative to the manifest's own folder,
    as a workspace may be moved or copied."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The part `settings` by key; lists of more than plain values (sources, whose options may be
    secret) as their digest."""

    @property
    def digest(self) -> str:
        """sha256 over the outputs' contents, for the key of what is made from them."""
        return digest_of([stamp.sha256 for _, stamp in sorted(self.outputs.items())])


class Verdict(NamedTuple):
    """Whether a unit of work has to run, and why."""

    is_done: bool
    reason: str
    changed: tuple[str, ...] = ()
    """Which of the things that decide it did, where some did."""


def digest_of(value: object) -> str:
    """sha256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remembered_digest(path: Path, memory: Path) -> str:
    """sha256 of a file's content (33 GB of a 7B), read once for as long as it stays as it is.

    `memory` is a log of what was read before, by inode, size and time.
    """
    status = path.stat()
    if status.st_size < REMEMBERED_BYTES:
        return file_digest(path)
    state = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]
    known = next((line for line in read_appended(memory) if line.get("state") == state), None)
    if known is not None:
        return known["sha256"]
    digest = file_digest(path)
    append_line(memory, {"state": state, "sha256": digest})
    return digest


def check(
    path: Path, unit: str, parts: Mapping[str, object], *, may_go: Collection[Path] = ()
) -> Verdict:
    """Tell whether a unit's outputs stand: same key, every file as it was.

    That outputs in the folders of `may_go` were deleted is no reason to make them again.
    """
    manifest = read(path)
    if manifest is None:
        return Verdict(is_done=False, reason="never done")
    changed = _changed(manifest.reasons, {name: digest_of(part) for name, part in parts.items()})
    if changed or manifest.unit != unit:
        said = [
            f"settings{_difference(manifest.settings, parts)}" if name == "settings" else name
            for name in changed
        ]
        reason = f"changed: {', '.join(said) or 'unit'}"
        return Verdict(is_done=False, reason=reason, changed=tuple(changed))
    for name, stamp in manifest.outputs.items():
        state = _state(Path(name), stamp)
        if state == "missing" and any(Path(name).is_relative_to(folder) for folder in may_go):
            continue
        if state != "same":
            return Verdict(is_done=False, reason=f"output {state}: {name}")
    return Verdict(is_done=True, reason="done before, unchanged")


def commit(path: Path, unit: str, parts: Mapping[str, object], outputs: Iterable[Path]) -> Manifest:
    """Stamp the outputs, none of which may be missing, and write the manifest, last."""
    stamps: dict[str, Stamp] = {}
    for output in outputs:
        if not output.exists():
            raise PipelineError(f"{unit} ended without its output {output}; run it again")
        files = sorted(output.rglob("*")) if output.is_dir() else [output]
        for file in (file for file in files if file.is_file()):
            status = file.stat()
            stamps[str(file)] = Stamp(status.st_size, status.st_mtime_ns, file_digest(file))
    reasons = {name: digest_of(part) for name, part in parts.items()}
    manifest = Manifest(unit, reasons, stamps, dict(flat(parts.get("settings"))))
    near = {os.path.relpath(name, path.parent): stamp for name, stamp in stamps.items()}
    write_json(path, asdict(replace(manifest, outputs=near)))
    return manifest


def read(path: Path) -> Manifest | None:
    """Read a manifest; one that is missing or unreadable says nothing."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        outputs = {
            os.path.normpath(path.parent / name): Stamp(*stamp)
            for name, stamp in fields["outputs"].items()
        }
        return Manifest(fields["unit"], fields["reasons"], outputs, fields.get("settings", {}))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _difference(before: Mapping[str, Any], parts: Mapping[str, object]) -> str:
    """Which settings changed, ` (beta 0.04 -> 0.1, ...)`; empty if what they were is not known."""
    now = dict(flat(parts.get("settings")))
    changes: list[str] = []
    for name in _changed(before, now):
        old, new = str(before.get(name, "not set")), str(now.get(name, "not set"))
        is_shown = max(len(old), len(new)) <= MAX_SHOWN and "sha256:" not in old + new
        changes.append(f"{name} {old} -> {new}" if is_shown else name)
    if len(changes) > MAX_CHANGES:
        changes[MAX_CHANGES:] = [f"{len(changes) - MAX_CHANGES} more"]
    return f" ({', '.join(changes)})" if before and changes else ""


def _changed(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def flat(value: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by key, e.g. `grpo.beta`."""
    if isinstance(value, dict):
        for name, inner in cast("dict[str, object]", value).items():
            yield from flat(inner, f"{prefix}.{name}" if prefix else name)
    elif prefix:
        is_plain = not isinstance(value, list) or not any(
            isinstance(item, list | dict) for item in cast("list[object]", value)
        )
        yield prefix, value if is_plain else f"sha256:{digest_of(cast('object', value))[:12]}"


def _state(path: Path, stamp: Stamp) -> str:
    try:
        status = path.stat()
    except FileNotFoundError:
        return "missing"
    if (status.st_size, status.st_mtime_ns) == (stamp.size_bytes, stamp.mtime_ns):
        return "same"
    if status.st_size != stamp.size_bytes or file_digest(path) != stamp.sha256:
        return "changed"
    os.utime(path, ns=(status.st_atime_ns, stamp.mtime_ns))  # same bytes: next time is quick again
    return "same"
