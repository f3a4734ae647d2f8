"""AVQA's annotation rows and R1-AQA's training examples: parsed once, at the border.

AVQA (AlyssaYoung/AVQA@main:data/annotation/train_qa.json) is a list of 40,425 rows with eight keys.
R1-AQA's example (xiaomi-research/r1-aqa@main:README.md) is the row, its keys in their order, plus
`dataset_name` and `audio_path`. A row that cannot become an example becomes a `Dropped` with its
reason: kept + dropped == read.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator

from storage.data.source import DataSource, Rows
from storage.download import download
from storage.errors import PipelineError
from storage.jsonl import write_bytes
from storage.records.clip import VIDEO_NAME, Clip, ClipState
from storage.records.example import Dropped, Example

# Git's own name of the published train_qa.json: sha1 of `blob SIZE\0` + content.
TRAIN_BLOB_ID = "dcf7ee2555bb4ce861a3e1e08fbda1508818d63c"
TRAIN_PATH = "/AlyssaYoung/AVQA/main/data/annotation/train_qa.json"
REMEDY = "Try again, or set annotations.train to a local copy of the file"
BEYOND_LIMIT = "beyond-limit"  # the reason of rows that `fetch.limit` leaves out
EXPECTED = {
    "id": "a number",
    "video_id": "a number",
    "video_name": "11 characters of YouTube id, '_' and six digits of start second",
    "multi_choice": "a list of at least two texts",
    "answer": "an index of its choices",
}
Text = Annotated[str, Field(pattern=r"\S")]


class _Row(BaseModel, strict=True):
    """What the keys of a row of annotations hold."""

    id: int | str
    video_id: int | str
    video_name: Annotated[str, Field(pattern=f"^{VIDEO_NAME.pattern}$")]
    question_text: Text
    question_relation: Text
    question_type: Text
    multi_choice: Annotated[list[str], Field(min_length=2)]
    answer: Annotated[int, Field(ge=0)]

    @field_validator("answer")
    @classmethod
    def _is_index(cls, answer: int, info: ValidationInfo) -> int:
        if answer >= len(info.data.get("multi_choice", ())):
            raise ValueError(answer)
        return answer


class AvqaSource(DataSource):
    """AVQA's rows of `annotations`, with the clips that `fetch` brought."""

    kind: Literal["avqa"] = "avqa"


@dataclass(frozen=True, slots=True)
class Annotations:
    """A file of annotations as read; each of its rows is in one of both."""

    rows: tuple[Example, ...]
    dropped: tuple[Dropped, ...]
    """Rows that cannot be used, with the key at fault, or are beyond `fetch.limit`."""
    sha256: str


def read_annotations(path_or_url: str, cache_dir: Path) -> Annotations:
    """Read AVQA's questions; malformed rows are set aside and never stop the rest.

    What an http address gives is kept in `cache_dir`. PipelineError if the file cannot be had, is
    not a JSON list of rows, or is train_qa.json with another content than was published.
    """
    content = _content_of(path_or_url, cache_dir)
    try:
        records = json.loads(content)
    except (ValueError, RecursionError) as error:  # nested too deeply
        raise PipelineError(f"annotations {path_or_url} are not JSON: {error}") from error
    if not isinstance(records, list) or not (entries := cast("list[object]", records)):
        msg = f"annotations {path_or_url}: expected a JSON list of rows as in AVQA's train_qa.json"
        raise PipelineError(msg)
    parsed = [_parse_row(record, index) for index, record in enumerate(entries)]
    return Annotations(
        rows=tuple(row for row in parsed if isinstance(row, Example)),
        dropped=tuple(row for row in parsed if isinstance(row, Dropped)),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _parse_row(record: object, index: int) -> Example | Dropped:
    """Check one row; what is wrong with it never stops the rest. Its example has no audio yet."""
    if not isinstance(record, dict):
        detail = f"row {index} is {type(record).__name__}, expected an object"
        return Dropped(None, None, "malformed:row", detail)
    fields = cast("dict[str, Any]", record)
    try:
        row = _Row.model_validate(fields)
    except ValidationError as error:
        key = str(error.errors()[0]["loc"][0])
        problem = f"key {key!r} is missing"
        if key in fields:
            problem = f"{key} is {fields[key]!r}, expected {EXPECTED.get(key, 'text')}"
        name, row_id = fields.get("video_name"), fields.get("id")
        row_id = row_id if isinstance(row_id, int | str) else None
        detail = f"row {index} (id {row_id}): {problem}"
        return Dropped(row_id, name if isinstance(name, str) else None, f"malformed:{key}", detail)
    values: dict[str, Any] = {**row.model_dump(), "multi_choice": tuple(row.multi_choice)}
    return Example(**values, audio_path="", dataset_name="AVQA")


def clips_of(rows: Iterable[Example]) -> list[Clip]:
    """The clips that rows ask about, each once, in the order of first mention."""
    return list(dict.fromkeys(row.clip for row in rows))


def limit_clips(annotations: Annotations, limit: int) -> Annotations:
    """The rows about the first `limit` clips, by an order that depends on a clip's name alone.

    So a smaller limit asks for a part of what a larger one does, whatever else is in the file.
    """
    names = {row.video_name for row in annotations.rows}
    ranked = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    chosen = set(ranked[:limit])
    rows = tuple(row for row in annotations.rows if row.video_name in chosen)
    detail = f"fetch.limit is {limit} clips"
    left_out = tuple(
        Dropped(row.id, row.video_name, BEYOND_LIMIT, detail)
        for row in annotations.rows
        if row.video_name not in chosen
    )
    return replace(annotations, rows=rows, dropped=annotations.dropped + left_out)


def convert(
    annotations: Annotations,
    states: Mapping[str, ClipState],
    *,
    audio_dir: str,
    has_wav: Callable[[Clip], bool],
) -> Rows:
    """Turn rows with audio into R1-AQA's examples and account for the others.

    Args:
        annotations: What was read.
        states: The ledger's word on each clip, by clip id; alone it is not trusted.
        audio_dir: Folder written in `audio_path`.
        has_wav: Whether a clip's wav lies in the workspace.
    """
    rows = Rows([], list(annotations.dropped))
    for row in annotations.rows:
        lost = _lost(row, states.get(row.video_name), has_wav)
        if lost is None:
            path = f"{audio_dir}/{row.clip.file_name}"
            rows.examples.append(replace(row, audio_path=path))
        else:
            rows.dropped.append(lost)
    return rows


def check_usable_share(rows: Rows, min_usable_share: float) -> None:
    """Refuse, with a table of reasons, to go on with a smaller share of those asked for, 0..1."""
    reasons = Counter(row.reason for row in rows.dropped)
    num_kept = len(rows.examples)
    num_asked = num_kept + reasons.total() - reasons[BEYOND_LIMIT]
    usable_share = num_kept / max(1, num_asked)
    if usable_share >= min_usable_share:
        return
    table = "\n".join(f"  {count:>7}  {reason}" for reason, count in reasons.most_common())
    raise PipelineError(
        f"only {num_kept} of {num_asked} annotation rows have audio ({usable_share:.1%}), and "
        f"fetch.min_usable_share asks for {min_usable_share:.0%}. Dropped rows:\n{table}\n"
        "Run fetch again for those that can still come, or lower the share: "
        "--set fetch.min_usable_share=0.5"
    )


def take_evenly(rows: Sequence[Example], size: int) -> tuple[Example, ...]:
    """At most `size` rows, taken evenly over the file, in its order."""
    if len(rows) <= size:
        return tuple(rows)
    return tuple(rows[position * len(rows) // size] for position in range(size))


def _lost(row: Example, state: ClipState | None, has_wav: Callable[[Clip], bool]) -> Dropped | None:
    clip_id = row.video_name
    if state is None or state.state == "pending":
        return Dropped(row.id, clip_id, "not-fetched", "fetch has not come to this clip yet")
    if state.state != "done":
        return Dropped(row.id, clip_id, f"{state.state}:{state.reason}", state.message)
    if not has_wav(row.clip):
        detail = f"the ledger has it, but {row.clip.file_name} is gone: run fetch again"
        return Dropped(row.id, clip_id, "wav-missing", detail)
    return None


def _content_of(path_or_url: str, cache_dir: Path) -> bytes:
    address = urlsplit(path_or_url)
    if address.scheme not in {"http", "https"}:
        try:
            return Path(path_or_url).read_bytes()
        except OSError as error:
            msg = f"annotations {path_or_url} cannot be read: {error.strerror}"
            raise PipelineError(msg) from error
    # So that two files called train_qa.json do not meet in the cache.
    digest = hashlib.sha256(path_or_url.encode()).hexdigest()[:8]
    cached = cache_dir / f"{digest}-{Path(address.path).name or 'annotations.json'}"
    is_kept = cached.exists()
    content = cached.read_bytes() if is_kept else download(path_or_url, "annotations", REMEDY)
    if address.path == TRAIN_PATH and git_blob_id(content) != TRAIN_BLOB_ID:
        cached.unlink(missing_ok=True)
        raise PipelineError(
            f"{path_or_url} is not the published file: git blob {git_blob_id(content)}, "
            f"expected {TRAIN_BLOB_ID}. Run again; if it stays so, download it "
            "yourself and set annotations.train to its path"
        )
    if not is_kept:
        write_bytes(cached, content)
    return content


def git_blob_id(content: bytes) -> str:
    r"""The name that git gives a file: sha1 of `blob SIZE\0` and its content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
