"""The annotation files that a profile names, read together."""

from dataclasses import replace
from typing import NamedTuple

from storage.config import AnnotationsConfig
from storage.data import avqa
from storage.layout import Layout


class AnnotationFiles(NamedTuple):
    """Training rows, and the held-out rows that checkpoints are chosen on."""

    train: avqa.Annotations
    validation: avqa.Annotations | None

    @property
    def clips(self) -> list[avqa.Clip]:
        """Every clip that a row asks about, once."""
        return avqa.clips_of(self.rows)

    @property
    def rows(self) -> list[avqa.AvqaRow]:
        """Every row, held-out ones last."""
        return [*self.train.rows, *(self.validation.rows if self.validation else ())]


def read_annotations(
    config: AnnotationsConfig, layout: Layout, limit: int | None = None
) -> AnnotationFiles:
    """Read both files; of the validation rows, those that are used.

    Args:
        config: Where they are.
        layout: Where downloaded ones are kept.
        limit: `fetch.limit`, clips of either file.

    Raises:
        PipelineError: If a file is missing or is not AVQA's.
    """
    cache = layout.workspace / "annotations"
    train = avqa.read_annotations(config.train, cache)
    if limit is not None:
        train = avqa.limit_clips(train, limit)
    if config.validation is None:
        return AnnotationFiles(train, None)
    whole = avqa.read_annotations(config.validation, cache)
    rows = avqa.take_evenly(whole.rows, config.validation_size)
    if limit is not None:
        rows = avqa.limit_clips(replace(whole, rows=rows), limit).rows
    used = replace(whole, rows=rows, malformed=(), num_read=len(rows))
    return AnnotationFiles(train, used)
