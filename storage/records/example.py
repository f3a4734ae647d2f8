"""A training example in R1-AQA's ten keys, a row that became none, and the account of both.

Source: xiaomi-research/r1-aqa@main:README.md. They are read by `storage.benchmarks.parse`'s mapping
of these keys (held out) and by `model.train.examples` (trained on). Rows read = kept + dropped.
"""

from dataclasses import asdict, dataclass
from typing import ClassVar

from storage.config import Config
from storage.jsonl import Record
from storage.records.clip import Clip, parse_video_name
from storage.records.document import Document

KEYS = (
    *("id", "video_name", "video_id", "question_text", "multi_choice", "answer"),
    *("question_relation", "question_type", "dataset_name", "audio_path"),
)


@dataclass(frozen=True, slots=True)
class Example:
    """One line of train.jsonl."""

    id: int | str
    """As its source has it."""
    question_text: str
    """E.g. `What happened in the video?`."""
    multi_choice: tuple[str, ...]
    """Two or more."""
    answer: int
    """Index of the right choice."""
    audio_path: str
    dataset_name: str
    video_name: str = ""
    """AVQA's; empty in other data, as are the next three."""
    video_id: int | str = ""
    question_relation: str = ""
    """`View`, `Sound` or `Both`."""
    question_type: str = ""
    """E.g. `Happening`."""
    weight: float | None = None
    """How often it is drawn, 1 on average; None: as any other."""

    @property
    def clip(self) -> Clip:
        """Of AVQA's."""
        return parse_video_name(self.video_name)

    def as_record(self) -> Record:
        """R1-AQA's ten keys in its order, and the weight where there is one."""
        record = {key: getattr(self, key) for key in KEYS}
        record["multi_choice"] = list(self.multi_choice)
        return record if self.weight is None else {**record, "weight": self.weight}


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that did not become an example."""

    id: int | str | None
    """The row's id; None where it has none that can be read."""
    video_name: str | None
    """The row's clip; None where it has none that can be read."""
    reason: str
    """E.g. `malformed:answer` or `invalid:private`; what the account is grouped by."""
    detail: str
    source: str = ""
    """Entry of `data` that it came from; empty where that is AVQA's."""

    def as_record(self) -> Record:
        """One line of dropped.jsonl."""
        return {key: value for key, value in asdict(self).items() if key != "source" or value}


class SourceAccount(Config):
    """What became of the rows of one source of training data."""

    name: str
    """Its entry of `data`."""
    num_kept: int
    """Rows that are trained on."""
    num_held_out: int
    """Rows that checkpoints are chosen on."""
    dropped: dict[str, int]
    """Rows that became no example, by reason."""
    weight: float | None = None
    """Share of the draws, relative to the others'."""

    @property
    def num_read(self) -> int:
        """Rows of the source."""
        return self.num_kept + self.num_held_out + sum(self.dropped.values())


class DataAccount(Document):
    """All sources of an experiment."""

    what: ClassVar[str] = "an account of training rows"

    sources: tuple[SourceAccount, ...]
    warnings: tuple[str, ...] = ()
    """Questions that are there twice, benchmarks made of the same data."""
