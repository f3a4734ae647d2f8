"""The report: one typed document of an experiment, and its selections, computed once.

`read` makes it of the experiment's files; pages, tables and exports are made of it and of nothing
else (but the audio files), so the same report gives the same bytes. An evaluation is looked up by
its whole key, a training's start model by its digest.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import ClassVar, NamedTuple, cast

from pydantic_core import PydanticSerializationError

from reports.numbers.statistics import tally
from reports.sheets import (
    Apart,
    Asked,
    BenchmarkSheet,
    EvaluationSheet,
    FetchSheet,
    Provenance,
    PublishedRow,
    RowsSheet,
    TrainingSheet,
    Unfinished,
)
from storage.records.document import Document
from storage.records.evaluation import ControlReport, RunKey
from storage.records.leading import Done, Leading
from storage.records.leading import leading as leading_step


class Report(Document):
    """Everything that the pages show."""

    what: ClassVar[str] = "a report"

    experiment: str
    profile: str
    """All settings, as JSON text."""
    provenance: Provenance = Provenance()
    scorers: tuple[str, ...]
    """The first leads."""
    declared_step: int | None = None
    """Step that leads by declaration."""
    benchmarks: tuple[BenchmarkSheet, ...]
    """In the profile's order, the held-out examples last."""
    trainings: tuple[TrainingSheet, ...]
    """In the profile's order."""
    evaluations: tuple[EvaluationSheet, ...]
    """Of this profile, whole ones: by benchmark, models before checkpoints, checkpoints by step."""
    unfinished: tuple[Unfinished, ...] = ()
    """Of this profile."""
    apart: tuple[Apart, ...] = ()
    """Not of this profile."""
    controls: tuple[ControlReport, ...] = ()
    fetch: FetchSheet | None = None
    """None: nothing was fetched."""
    rows: RowsSheet | None = None
    """None: nothing was converted."""
    published: tuple[PublishedRow, ...] = ()
    """Results of others."""

    @cached_property
    def tests(self) -> tuple[BenchmarkSheet, ...]:
        """The benchmarks, without the held-out examples on which a step is chosen."""
        return tuple(benchmark for benchmark in self.benchmarks if benchmark.is_test)

    @cached_property
    def by_key(self) -> Mapping[RunKey, EvaluationSheet]:
        """Every whole evaluation of this profile."""
        return {sheet.key: sheet for sheet in self.evaluations}

    @property
    def other_models(self) -> list[str]:
        """Keys of the models that were not trained here."""
        asked = (sheet for sheet in self.evaluations if sheet.step is None)
        return list(dict.fromkeys(sheet.model for sheet in asked))

    def training(self, name: str) -> TrainingSheet:
        """The training of a name."""
        return next(training for training in self.trainings if training.name == name)

    def find(self, asked: Asked, benchmark: BenchmarkSheet) -> EvaluationSheet | None:
        """A model's answers to a benchmark, if it has any."""
        return self.by_key.get(RunKey(benchmark=benchmark.key, **asked._asdict()))

    def on(self, benchmark: BenchmarkSheet) -> list[EvaluationSheet]:
        """All evaluations on a benchmark, controls included."""
        return [found for found in self.evaluations if found.key.benchmark == benchmark.key]

    def judged(self, benchmark: BenchmarkSheet, scorer: str | None = None) -> "Judged | None":
        """What a scorer judged of a benchmark, by default the first that did, if any did."""
        for name in (scorer,) if scorer else self.scorers:
            found = [
                sheet
                for sheet in self.on(benchmark)
                if name in sheet.marks and sheet.key.control is None
            ]
            if found:
                return Judged(self, benchmark, name, found)
        return None

    @cached_property
    def scored(self) -> "list[Judged]":
        """The tests that were judged, under their leading scorers."""
        return [judged for benchmark in self.tests if (judged := self.judged(benchmark))]

    @cached_property
    def leading(self) -> Mapping[str, Leading]:
        """The step to quote of each training that has one, and why."""
        first = self.scorers[0]
        done = [
            Done(
                sheet.run,
                len(sheet.parsed),
                tally(sheet.marks[first]) if first in sheet.marks else None,
            )
            for sheet in self.evaluations
        ]
        done += [Done(found.run, found.answered.num_correct, None) for found in self.unfinished]
        num_asked = sum(len(benchmark.questions) for benchmark in self.tests)
        return {
            training.name: step
            for training in self.trainings
            if (
                step := leading_step(
                    training.name,
                    training.prompt,
                    training.planned,
                    done,
                    num_asked=num_asked,
                    declared=self.declared_step,
                )
            )
        }

    def leads(self, sheet: EvaluationSheet) -> bool:
        """Whether it is of a step to quote, asked as its training asks."""
        leading = self.leading.get(sheet.training or "")
        return (
            leading is not None
            and sheet.step == leading.step
            and sheet.prompt == self.training(str(sheet.training)).prompt
        )

    @cached_property
    def prompts(self) -> Mapping[str, frozenset[str]]:
        """Prompts that each model was asked with."""
        asked = {sheet.asked for sheet in self.evaluations}
        return {
            model: frozenset(prompt for own, prompt in asked if own == model) for model, _ in asked
        }

    def label(self, key: RunKey) -> str:
        """The model's key, with the prompt where it was asked with several, and the control."""
        prompt = key.prompt if len(self.prompts[key.model]) > 1 else None
        return " · ".join(part for part in (key.model, prompt, key.control) if part)

    @cached_property
    def withheld(self) -> tuple[EvaluationSheet, ...]:
        """Predictions for benchmarks that keep their answers; controls are left out."""
        kept = {benchmark.key for benchmark in self.tests if benchmark.is_withheld}
        return tuple(
            sheet
            for sheet in self.evaluations
            if sheet.key.benchmark in kept and sheet.key.control is None
        )


class Judged(NamedTuple):
    """The evaluations on a benchmark that one scorer judged, controls left out."""

    report: Report
    benchmark: BenchmarkSheet
    scorer: str
    evaluations: Sequence[EvaluationSheet]

    def steps(self, training: TrainingSheet) -> list[EvaluationSheet]:
        """A training's checkpoints by step, asked with its own prompt."""
        wanted = (training.name, training.prompt)
        return [sheet for sheet in self.evaluations if (sheet.training, sheet.prompt) == wanted]

    def leading(self, training: TrainingSheet) -> EvaluationSheet | None:
        """That of the step to quote."""
        return next((sheet for sheet in self.steps(training) if self.report.leads(sheet)), None)

    def start(self, training: TrainingSheet) -> EvaluationSheet | None:
        """That of the very model that a training started from, asked with the training's prompt.

        A checkpoint of the training's own is never it: one that learned nothing has its weights.
        """
        wanted = (training.start and training.start.digest, training.prompt)
        for sheet in self.evaluations:
            is_own = sheet.training == training.name
            if (sheet.run.model.digest, sheet.prompt) == wanted and not is_own:
                return sheet
        return None

    def course(self, training: TrainingSheet) -> dict[int, EvaluationSheet]:
        """A training's checkpoints by step; its start model, where it was asked, is step 0."""
        start = self.start(training)
        steps = {sheet.step or 0: sheet for sheet in self.steps(training)}
        return ({0: start} if start else {}) | steps


def cleaned(report: Report) -> Report:
    """The same report without text that no page can hold; itself where there is none."""
    try:
        is_clean = b"\\u0000" not in report.__pydantic_serializer__.to_json(report)
    except PydanticSerializationError:  # a lone surrogate
        is_clean = False
    return report if is_clean else Report.model_validate(clean(report.model_dump()))


def clean(value: object) -> object:
    """The same JSON value without lone surrogates and NULs, which no page can hold."""
    if isinstance(value, str):
        return value.encode("utf-8", errors="replace").decode("utf-8").replace("\0", "\ufffd")
    if isinstance(value, dict):
        members = cast("dict[object, object]", value)
        return {clean(key): clean(item) for key, item in members.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in cast("list[object]", value)]
    return value
