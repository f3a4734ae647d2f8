"""Reads one experiment's files into the report, and says what of them is not of its profile.

What counts is what the profile asks for: its trainings by name, seed, method and prompt, the models
that these started from by digest, the further models by name, the benchmarks by name as they were
asked last. Everything else in the folder is listed apart and decides nothing.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import AliasPath, BaseModel, Field

from reports.clips import read_fetch, read_rows
from reports.config import ReportConfig
from reports.evaluations import read_sheet
from reports.published import read_published
from reports.report import Report, cleaned
from reports.sheets import Apart, BenchmarkSheet, Provenance, TrainingSheet, Unfinished
from reports.trainings import TrainingEntry, read_training_sheet
from storage.audio import common_folder
from storage.benchmarks.difference import subsets
from storage.benchmarks.parse import read_questions, sample_name
from storage.benchmarks.published import (
    PublishedBenchmark,
    address_of,
    find_description,
    rows_folder,
)
from storage.config import BenchmarkConfig
from storage.errors import PipelineError
from storage.jsonl import read_jsonl
from storage.layout import Layout
from storage.manifest import file_digest
from storage.records.evaluation import (
    ControlReport,
    EvaluationRun,
    Role,
    StoredRun,
    Tally,
    list_runs,
    read_answers,
)
from storage.records.leading import ProfileFacts, belongs
from storage.records.prompt import NamedPrompt
from storage.records.question import VALIDATION

OTHER_WEIGHTS = "the profile has other weights or clips under this name now"


class FurtherModel(BaseModel):
    """A model that the profile asks besides its trainings'."""

    name: str
    prompt: NamedPrompt = "answer"


class EvaluateEntry(BaseModel):
    """What the report needs of the settings of evaluation."""

    benchmarks: tuple[BenchmarkConfig, ...] = ()
    models: tuple[FurtherModel, ...] = ()
    limit: int | None = None
    scorers: tuple[str, ...] = ("official", "strict")
    declared_step: int | None = None


class Profile(BaseModel):
    """What the report needs of an experiment's settings; other keys are passed over."""

    train: tuple[TrainingEntry, ...] = ()
    evaluate: EvaluateEntry = EvaluateEntry()
    annotations: str | None = Field(None, validation_alias=AliasPath("annotations", "train"))
    """Where AVQA's rows are."""


class Sorted(NamedTuple):
    """Runs of the profile in the report's order, and the others."""

    own: list[StoredRun]
    """Each with the role that it has in this report."""
    apart: list[Apart]


def read_report(
    layout: Layout,
    config: ReportConfig,
    *,
    settings: Mapping[str, object],
    provenance: Provenance | None = None,
    facts: ProfileFacts | None = None,
    while_training: bool = False,
) -> Report:
    """Read an experiment's folders.

    Args:
        layout: Where they are.
        config: Whether published rows are shown, and a file of further ones.
        settings: The whole profile as JSON.
        provenance: What the caller knows of commit, versions and command.
        facts: Digests of what the profile asks for; None: what the settings' names tell.
        while_training: Nothing need be evaluated yet.

    Raises:
        PipelineError: If nothing was evaluated, or files contradict each other.
    """
    runs = list_runs(layout.evaluations)
    if not while_training and not any(stored.is_scored for stored in runs):
        msg = (
            f"{layout.root / 'evaluation'} holds nothing to report; run the evaluate stage first "
            f"(its result is evaluation/<model>/<benchmark>/<prompt>/score.json)"
        )
        raise PipelineError(msg)
    profile = Profile.model_validate(settings)
    trainings = [read_training_sheet(layout, entry) for entry in profile.train]
    current = [stored.run for stored in runs if facts is None or belongs(stored.run, facts)]
    benchmarks = _read_benchmarks(layout, profile, current)
    own, apart = _sort(runs, profile, trainings, benchmarks, facts)
    questions = {benchmark.key: benchmark.questions for benchmark in benchmarks}
    whole = [stored for stored in own if stored.is_scored]
    asked = {stored.run.key.benchmark for stored in whole}
    report = Report(
        experiment=layout.experiment,
        profile=json.dumps(settings, ensure_ascii=False, indent=1),
        provenance=provenance or Provenance(),
        scorers=profile.evaluate.scorers,
        declared_step=profile.evaluate.declared_step,
        benchmarks=tuple(benchmark for benchmark in benchmarks if benchmark.key in asked),
        trainings=tuple(trainings),
        evaluations=tuple(
            read_sheet(stored, questions[stored.run.key.benchmark]) for stored in whole
        ),
        unfinished=tuple(_unfinished(stored) for stored in own if not stored.is_scored),
        apart=tuple(apart),
        controls=tuple(
            ControlReport.read(path)
            for stored in whole
            if (path := stored.folder / "controls.json").exists()
        ),
        fetch=read_fetch(layout),
        rows=read_rows(layout, annotations=profile.annotations),
        published=read_published(config),
    )
    return cleaned(report)


def audio_roots(
    layout: Layout, settings: Mapping[str, object], benchmarks: Sequence[BenchmarkSheet]
) -> dict[str, Path]:
    """Folder that each benchmark's clips are relative to, by its key, where there is one.

    The folder that the profile names, else the benchmark's own; that of the held-out examples.
    """
    asked = Profile.model_validate(settings).evaluate
    entries = {sample_name(entry.name, asked.limit): entry for entry in asked.benchmarks}
    roots: dict[str, Path] = {}
    for benchmark in benchmarks:
        entry = entries.get(benchmark.name)
        own = layout.benchmark(benchmark.key) / "audio"
        if not benchmark.is_test:
            own = _held_out_folder(layout)
        elif entry and (known := find_description(entry)).rows and not entry.audio:
            own = rows_folder(address_of(entry, known), layout.benchmarks)
        place = Path((entry and entry.audio) or own).expanduser()
        roots[benchmark.key] = place if place.is_dir() else own
    return {key: root for key, root in roots.items() if root.is_dir()}


def _held_out_folder(layout: Layout) -> Path:
    if not layout.validation_jsonl.exists():
        return layout.clips
    clips = [row["audio_path"] for row in read_jsonl(layout.validation_jsonl)]
    return common_folder(clips) if clips else layout.clips


def _read_benchmarks(
    layout: Layout, profile: Profile, runs: Sequence[EvaluationRun]
) -> list[BenchmarkSheet]:
    """The profile's benchmarks that were asked, in its order, the held-out examples last."""
    found: list[BenchmarkSheet] = []
    described: dict[str, PublishedBenchmark] = {}
    limit, asked = profile.evaluate.limit, profile.evaluate.benchmarks
    entries = {sample_name(entry.name, limit): entry for entry in asked}
    for name in [*entries, VALIDATION]:
        keys = {run.key.benchmark for run in runs if run.benchmark_name == name}
        paths = {key: layout.benchmark(key) / "questions.json" for key in keys}
        asked_last = {key: path.stat().st_mtime_ns for key, path in paths.items() if path.exists()}
        if not asked_last:
            continue
        key = max(sorted(asked_last), key=lambda key: asked_last[key])
        path = paths[key]
        known = find_description(entries[name]) if name in entries else PublishedBenchmark()
        sheet = BenchmarkSheet(
            key=key,
            name=name,
            is_test=name != VALIDATION,
            questions_sha256=file_digest(path),
            questions=tuple(read_questions(path)),
            about=f"{known.title}. {known.note}" if known.title else "",
            rule=known.rule,
        )
        found.append(sheet)
        described[name] = known
    return [_with_subsets(sheet, found, described) for sheet in found]


def _with_subsets(
    sheet: BenchmarkSheet,
    others: Sequence[BenchmarkSheet],
    described: Mapping[str, PublishedBenchmark],
) -> BenchmarkSheet:
    known = described[sheet.name]
    versions = {
        other.name: other.questions
        for other in others
        if known.family and other is not sheet and described[other.name].family == known.family
    }
    positions = subsets(sheet.questions, known.errata, versions)
    return sheet.model_copy(update={"subsets": positions})


def _sort(
    runs: Sequence[StoredRun],
    profile: Profile,
    trainings: Sequence[TrainingSheet],
    benchmarks: Sequence[BenchmarkSheet],
    facts: ProfileFacts | None,
) -> Sorted:
    own: list[StoredRun] = []
    apart: list[Apart] = []
    for stored in runs:
        run = stored.run
        reason = _stale_benchmark(run, benchmarks)
        role = None if reason else _role(run, profile, trainings)
        if role and facts and not belongs(run, facts):
            reason = OTHER_WEIGHTS
        elif role:
            own.append(stored._replace(run=_in_role(run, role, trainings)))
            continue
        num_answered = len(read_answers(stored.folder / "answers.jsonl"))
        reason = reason or _stale_model(run, trainings)
        apart.append(Apart(key=run.key, reason=reason, num_answered=num_answered))
    return Sorted(sorted(own, key=lambda stored: _reading_order(stored.run)), apart)


def _reading_order(run: EvaluationRun) -> tuple[str, str, int, str, str]:
    """Models before the checkpoints of trainings, checkpoints by step."""
    ref = run.model.training if run.role == "checkpoint" else None
    training, step = (ref.name, ref.step) if ref else ("", -1)
    return (run.benchmark_name, training, step, run.key.model, run.key.folder.name)


def _role(run: EvaluationRun, profile: Profile, trainings: Sequence[TrainingSheet]) -> Role | None:
    """The role of a model in this report; None: the profile does not ask for it."""
    if run.role == "imported":  # a person brought it here, no profile does
        return "imported"
    started = {
        (training.start.digest, training.prompt)
        for training in trainings
        if training.evaluated and training.start
    }
    is_start = (run.model.digest, run.key.prompt) in started
    training = _training_of(run, trainings)
    if training and (is_start or run.key.prompt == training.prompt):
        return "checkpoint"
    if is_start:
        return "start"
    further = {(model.name, model.prompt) for model in profile.evaluate.models}
    return "other" if (run.key.model, run.key.prompt) in further else None


def _training_of(run: EvaluationRun, trainings: Sequence[TrainingSheet]) -> TrainingSheet | None:
    """The evaluated training of the profile whose checkpoint it is."""
    ref = run.model.training
    if ref is None:
        return None
    for training in trainings:
        is_saved = not training.planned or ref.step in training.planned
        if (training.name, training.seed) == (ref.name, ref.seed) and training.evaluated:
            return training if is_saved else None
    return None


def _in_role(run: EvaluationRun, role: Role, trainings: Sequence[TrainingSheet]) -> EvaluationRun:
    training = _training_of(run, trainings) if role == "checkpoint" else None
    method, variant = (training.method, training.variant) if training else (None, None)
    return run.model_copy(update={"role": role, "method": method, "variant": variant})


def _stale_benchmark(run: EvaluationRun, benchmarks: Sequence[BenchmarkSheet]) -> str:
    for benchmark in benchmarks:
        if benchmark.name == run.benchmark_name:
            same = (benchmark.key, benchmark.questions_sha256)
            is_same = (run.key.benchmark, run.questions_sha256) == same
            return "" if is_same else f"{benchmark.name} has other questions now"
    return f"{run.benchmark_name} is no benchmark of the profile"


def _stale_model(run: EvaluationRun, trainings: Sequence[TrainingSheet]) -> str:
    ref = run.model.training
    if ref is None:
        return "no training starts from this model with this prompt, and no entry names it"
    training = next((training for training in trainings if training.name == ref.name), None)
    if training is None:
        return f"{ref.name} is no training of the profile"
    if training.seed != ref.seed:
        return f"{ref.name} had seed {ref.seed}; it has {training.seed} now"
    if training.planned and ref.step not in training.planned:
        return f"{ref.name} saves no step {ref.step} now"
    if not training.evaluated:
        return f"{ref.name} is not evaluated by the profile"
    return f"{ref.name} has prompt {training.prompt}"


def _unfinished(stored: StoredRun) -> Unfinished:
    answered = len(read_answers(stored.folder / "answers.jsonl"))
    return Unfinished(run=stored.run, answered=Tally(answered, stored.run.num_questions))
