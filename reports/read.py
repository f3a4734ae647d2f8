"""Reads one experiment's files into the report, and says what of them is not of its profile.

What counts is what the profile asks for: its trainings by name, seed, method and prompt, the models
that these started from by digest, the further models by name, the benchmarks by name as they were
asked last. Everything else in the folder is listed apart and decides nothing.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import AliasPath, BaseModel, Field

from reports.config import ReportConfig
from reports.published import read_published
from reports.report import Report, cleaned
from reports.sheets import Apart, BenchmarkSheet, Provenance, TrainingSheet, Unfinished
from reports.stages import TrainingEntry, read_fetch, read_rows, read_sheet, read_training_sheet
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
    StoredRun,
    Tally,
    list_runs,
    read_answers,
)
from storage.records.leading import ProfileFacts, belongs
from storage.records.model import TrainingRef
from storage.records.prompt import NamedPrompt
from storage.records.question import VALIDATION

NOT_ASKED = "no training starts from this model with this prompt, and no entry names it"


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

    @property
    def by_name(self) -> dict[str, BenchmarkConfig]:
        """The benchmarks by their name in evaluations, where a sample has its own."""
        return {sample_name(entry.name, self.limit): entry for entry in self.benchmarks}


class Profile(BaseModel):
    """What the report needs of an experiment's settings; other keys are passed over."""

    train: tuple[TrainingEntry, ...] = ()
    evaluate: EvaluateEntry = EvaluateEntry()
    annotations: str | None = Field(None, validation_alias=AliasPath("annotations", "train"))
    """Where AVQA's rows are."""


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

    Without `facts` what the settings' names tell is asked for; while a training runs nothing need
    be evaluated yet.

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
    benchmarks = _read_benchmarks(layout, profile.evaluate, current)
    own: list[StoredRun] = []
    apart: list[Apart] = []
    for stored in runs:
        found = _in_report(stored.run, profile, trainings, benchmarks, facts)
        if isinstance(found, str):
            number = len(read_answers(stored.folder / "answers.jsonl"))
            apart.append(Apart(key=stored.run.key, reason=found, num_answered=number))
        else:
            own.append(stored._replace(run=found))
    own.sort(key=lambda stored: _reading_order(stored.run))
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
    entries = Profile.model_validate(settings).evaluate.by_name
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
    held_out = layout.validation_jsonl
    clips = [row["audio_path"] for row in read_jsonl(held_out)] if held_out.exists() else []
    return common_folder(clips) if clips else layout.clips


def _read_benchmarks(
    layout: Layout, asked: EvaluateEntry, runs: Sequence[EvaluationRun]
) -> list[BenchmarkSheet]:
    """The profile's benchmarks that were asked, in its order, the held-out examples last."""
    paths: dict[str, Path] = {}
    for name in (*asked.by_name, VALIDATION):
        keys = sorted({run.key.benchmark for run in runs if run.benchmark_name == name})
        found = [layout.benchmark(key) / "questions.json" for key in keys]
        found = [path for path in found if path.exists()]
        if found:  # as they were asked last
            paths[name] = max(found, key=lambda path: path.stat().st_mtime_ns)
    questions = {name: tuple(read_questions(path)) for name, path in paths.items()}
    described = {name: find_description(entry) for name, entry in asked.by_name.items()}
    known = {name: described.get(name, PublishedBenchmark()) for name in paths}

    def sheet(name: str) -> BenchmarkSheet:
        own = known[name]
        versions = {
            other: questions[other]
            for other in paths
            if other != name and own.family and known[other].family == own.family
        }
        return BenchmarkSheet(
            key=paths[name].parent.name,
            name=name,
            is_test=name != VALIDATION,
            questions_sha256=file_digest(paths[name]),
            questions=questions[name],
            about=f"{own.title}. {own.note}" if own.title else "",
            rule=own.rule,
            subsets=subsets(questions[name], own.errata, versions),
        )

    return [sheet(name) for name in paths]


def _in_report(
    run: EvaluationRun,
    profile: Profile,
    trainings: Sequence[TrainingSheet],
    benchmarks: Sequence[BenchmarkSheet],
    facts: ProfileFacts | None,
) -> EvaluationRun | str:
    """The run in the role that it has in this report, or why the profile does not ask for it."""
    benchmark = next((known for known in benchmarks if known.name == run.benchmark_name), None)
    if benchmark is None:
        return f"{run.benchmark_name} is no benchmark of the profile"
    if (run.key.benchmark, run.questions_sha256) != (benchmark.key, benchmark.questions_sha256):
        return f"{benchmark.name} has other questions now"
    asked = (run.model.digest, run.key.prompt)
    is_start = asked in {
        (training.start.digest, training.prompt)
        for training in trainings
        if training.evaluated and training.start
    }
    ref = run.model.training
    training = next((known for known in trainings if ref and known.name == ref.name), None)
    stale = _stale(ref, training, None if is_start else run.key.prompt) if ref else NOT_ASKED
    further = {(model.name, model.prompt) for model in profile.evaluate.models}
    in_role: dict[str, object] = {"method": None, "variant": None}
    if run.role == "imported":  # a person brought it here, no profile does
        in_role["role"] = "imported"
    elif training and not stale:
        in_role = {"role": "checkpoint", "method": training.method, "variant": training.variant}
    elif is_start:
        in_role["role"] = "start"
    elif (run.key.model, run.key.prompt) in further:
        in_role["role"] = "other"
    else:
        return stale
    if facts and not belongs(run, facts):
        return "the profile has other weights or clips under this name now"
    return run.model_copy(update=in_role)


def _stale(ref: TrainingRef, training: TrainingSheet | None, prompt: str | None) -> str:
    """Why a checkpoint is none of those that the profile evaluates; empty: it is one."""
    if training is None:
        return f"{ref.name} is no training of the profile"
    if training.seed != ref.seed:
        return f"{ref.name} had seed {ref.seed}; it has {training.seed} now"
    if training.planned and ref.step not in training.planned:
        return f"{ref.name} saves no step {ref.step} now"
    if not training.evaluated:
        return f"{ref.name} is not evaluated by the profile"
    is_other = prompt is not None and prompt != training.prompt
    return f"{ref.name} has prompt {training.prompt}" if is_other else ""


def _reading_order(run: EvaluationRun) -> tuple[str, str, int, str, str]:
    """Models before the checkpoints of trainings, checkpoints by step."""
    ref = run.model.training if run.role == "checkpoint" else None
    training, step = (ref.name, ref.step) if ref else ("", -1)
    return (run.benchmark_name, training, step, run.key.model, run.key.folder.name)


def _unfinished(stored: StoredRun) -> Unfinished:
    answered = len(read_answers(stored.folder / "answers.jsonl"))
    return Unfinished(run=stored.run, answered=Tally(answered, stored.run.num_questions))
