"""What became of the rows of training data, source by source: rows read = kept + dropped."""

from typing import ClassVar

from storage.config import Config
from storage.records.document import Document


class SourceAccount(Config):
    """One source."""

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
    """In the profile's order."""
    warnings: tuple[str, ...] = ()
    """Questions that are there twice, benchmarks made of the same data."""
