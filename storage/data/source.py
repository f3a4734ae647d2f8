"""A source of training examples: an entry of `data`, one file of this folder a kind.

A source brings rows and the files of their clips; here they become examples, or are dropped with
their reason: rows read = kept + dropped. Adding a kind is adding a file with a `DataSource`.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, NamedTuple, cast

from pydantic import Field

from storage.config import Config, FileName
from storage.mapping import BadRowError, RowMapping, without_letters
from storage.records.example import Dropped, Example
from storage.records.question import Question


class Rows(NamedTuple):
    """What a source gave."""

    examples: list[Example]
    dropped: list[Dropped]


class DataSource(Config):
    """What all kinds of sources have."""

    kind: Any
    """Which one it is, e.g. `avqa`."""
    name: FileName | None = None
    """In the account of rows; None: its kind."""
    weight: Annotated[float, Field(gt=0)] | None = None
    """Share of the draws, relative to the others'; None for all: each row is drawn as often."""
    held_out: Annotated[int, Field(ge=0)] = 0
    """Rows, about clips of their own, that are kept back as validation; chosen by `seed`."""
    validation: bool = False
    """Whether all of it is validation."""
    seed: int = 42
    """Of the rows that are held out."""

    @property
    def label(self) -> str:
        """Its name in the account."""
        return self.name or self.kind

    @property
    def file(self) -> Path | None:
        """The file of this host that it reads, if it is of that kind."""
        return None

    def read(self, cache: Path) -> Rows:
        """Its examples, and its rows that can be none; PipelineError if it cannot be had.

        What is brought from elsewhere goes into `cache`, which all experiments share.
        """
        raise NotImplementedError

    def decides(self, cache: Path) -> object:
        """What its rows depend on besides its settings, e.g. a digest; brings nothing."""
        raise NotImplementedError


def examples_of(
    rows: Iterable[object], fields: RowMapping, label: str, find: Callable[[str], Path | None]
) -> Rows:
    """Rows as examples, where they are whole and `find` knows the file of their clip.

    The source's label stands for the data set where a row names none.
    """
    examples: list[Example] = []
    dropped: list[Dropped] = []
    for index, row in enumerate(rows):
        place = fields.place_of(row, index)
        try:
            question = _question(row, fields)
        except BadRowError as error:
            reason, detail = f"malformed:{error.key}", f"{place}: {error}"
            dropped.append(Dropped(None, None, reason, detail, label))
            continue
        clip = find(question.clips[0])
        if clip is None:
            detail = f"{place}: {fields.audio_id!r} is {question.clips[0]!r}: no such file"
            dropped.append(Dropped(question.id, None, "audio-missing", detail, label))
            continue
        own = cast("dict[str, Any]", row)
        given = own.get(fields.id) if isinstance(fields.id, str) else None
        examples.append(
            Example(
                id=given if isinstance(given, int) else question.id,
                question_text=question.question,
                multi_choice=question.choices,
                answer=question.choices.index(question.answer or ""),
                audio_path=str(clip),
                dataset_name=question.dataset or label,
                video_name=str(own.get("video_name", "")),
                video_id=own.get("video_id", ""),
                question_relation=question.category,
                question_type=question.sub_category,
            )
        )
    return Rows(examples, dropped)


def _question(row: object, fields: RowMapping) -> Question:
    question = fields.question_of(row)
    question = without_letters(question) or question
    if question.answer not in question.choices:
        what = f"{fields.answer!r} is {question.answer!r}"
        raise BadRowError(fields.answer, f"{what}, expected one of the choices")
    return question


def clip_finder(folder: Path) -> Callable[[str], Path | None]:
    """Finds a clip by its path in a folder, else by the name that only one file under it has."""
    by_name: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        by_name.setdefault(path.name, []).append(path)

    def find(name: str) -> Path | None:
        path = folder / name  # an absolute one stays as it is
        alike = by_name.get(Path(name).name, [])
        found = path if path.is_file() else alike[0] if len(alike) == 1 else None
        return found and found.absolute()

    return find


def without_unreadable(rows: Rows, label: str, facts: dict[str, dict[str, Any]]) -> Rows:
    """The examples whose clip decodes; the others are dropped with the reason."""
    lost = {path: fact["reason"] for path, fact in facts.items() if "reason" in fact}
    dropped = [
        Dropped(row.id, None, "unreadable", lost[row.audio_path], label)
        for row in rows.examples
        if row.audio_path in lost
    ]
    kept = [row for row in rows.examples if row.audio_path not in lost]
    return Rows(kept, rows.dropped + dropped)
