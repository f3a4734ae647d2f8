"""What the stages read that none of them makes: annotations, benchmarks, a made world."""

from dataclasses import replace
from typing import NamedTuple

from model.config import EvaluateConfig
from storage.benchmarks.prepare import (
    Benchmark,
    prepare,
    prepare_asked,
    prepare_validation,
    prepare_validation_questions,
)
from storage.config import AnnotationsConfig, WorldConfig
from storage.data import avqa
from storage.jsonl import Record, read_jsonl
from storage.layout import Layout
from storage.records.clip import Clip
from storage.records.example import Example
from storage.world import make
from tasks.running.console import say
from tasks.running.turns import turn

TOLD_EVERY = 1000  # clips


class AnnotationFiles(NamedTuple):
    """Training rows, and the held-out rows that checkpoints are chosen on."""

    train: avqa.Annotations
    validation: avqa.Annotations | None

    @property
    def clips(self) -> list[Clip]:
        """Every clip that a row asks about, once."""
        return avqa.clips_of(self.rows)

    @property
    def rows(self) -> list[Example]:
        """Every row, held-out ones last."""
        return [*self.train.rows, *(self.validation.rows if self.validation else ())]


def read_annotations(
    config: AnnotationsConfig | None, layout: Layout, limit: int | None = None
) -> AnnotationFiles:
    """Read both files, none where nothing is trained on AVQA; of the validation rows, those used.

    `limit` is `fetch.limit`, clips of either file.
    """
    if config is None:
        return AnnotationFiles(avqa.Annotations((), (), ""), None)
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
    used = replace(whole, rows=rows, dropped=())
    return AnnotationFiles(train, used)


def prepare_benchmarks(config: EvaluateConfig, layout: Layout) -> list[Benchmark]:
    """Make every benchmark of the profile ready, and the held-out examples where there are some."""
    with turn("the benchmarks", layout.locks / "benchmarks.lock"):
        benchmarks = [
            prepare(entry, layout.benchmarks, _tell, limit=config.limit)
            for entry in config.benchmarks
        ]
        if examples := _held_out(layout):
            benchmarks.append(prepare_validation(examples, layout.benchmarks, _tell))
        return benchmarks


def asked_benchmarks(config: EvaluateConfig, layout: Layout) -> dict[str, bool]:
    """Whether zeros stand for the clips, by key of each benchmark of the profile; reads no clip."""
    asked = {
        prepare_asked(entry, layout.benchmarks, config.limit).parent.name: entry.silence
        for entry in config.benchmarks
    }
    if examples := _held_out(layout):
        asked[prepare_validation_questions(examples, layout.benchmarks).parent.name] = False
    return asked


def _held_out(layout: Layout) -> list[Record]:
    return read_jsonl(layout.validation_jsonl) if layout.validation_jsonl.exists() else []


def _tell(what: str, num_done: int, total: int) -> None:
    if num_done % TOLD_EVERY == 0:
        say(f"  {what}: {num_done}/{total}")


def make_world(config: WorldConfig | None, layout: Layout) -> None:
    """Make the world's files where they do not stand yet; nothing to do in the real one."""
    if config is None:
        return
    with turn("the made world", layout.locks / "world.lock"):
        if not layout.world.exists():
            say(f"world: making {config.num_videos} videos and a benchmark in {layout.world}")
        make.make_world(config, layout.world)
