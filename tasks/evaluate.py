"""Evaluate: models answer the benchmarks in child processes, and every scorer judges the answers.

A unit is one model on one benchmark with one prompt, or with one control of it. The answers are
appended as they come, so that a killed run goes on where it was; scoring follows in this process,
without torch.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from model.config import EvaluateConfig, PromptName, TrainConfig
from model.score.control_report import write_control_report
from model.score.controls import runs_of
from model.score.scorers import score_folder
from storage import manifest
from storage.benchmarks.prepare import Benchmark
from storage.config import deciding
from storage.errors import PipelineError
from storage.jsonl import read_appended, read_json, write_json
from storage.layout import Layout
from tasks.models import Model, resolve, trained, trained_so_far
from tasks.outcome import expected_errors_fail
from tasks.running.child_process import run_child
from tasks.running.console import meter
from tasks.running.gpus import hold_gpus
from tasks.train import is_under_way
from tasks.units import Unit

PROGRESS_LINE = re.compile(r"(\S+) on (.+?): (\d+)/(\d+) answered")
SILENCE_LIMIT_S = 1800.0  # loading 7B weights from a cold disk takes minutes, a batch seconds
START_MODEL = "base"  # method of a model that was not trained here


@dataclass(frozen=True, slots=True)
class Asked:
    """A model and how it is asked."""

    model: Model
    """Weights."""
    method: str
    """`base`, or the training's: `grpo`, `sft`, `lora-grpo`, `lora-sft`."""
    prompt: PromptName
    """Prompt to ask with."""
    has_controls: bool
    """Whether the controls are run on it: start models and last checkpoints."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run of one model over one benchmark."""

    asked: Asked
    benchmark: Benchmark
    control: str | None

    @property
    def run_name(self) -> str:
        """Folder name: the prompt, and after a `+` the control."""
        return f"{self.asked.prompt}+{self.control}" if self.control else self.asked.prompt

    @property
    def name(self) -> str:
        """The unit's name."""
        return f"evaluate/{self.asked.model.key}/{self.benchmark.name}/{self.run_name}"

    def folder(self, layout: Layout) -> Path:
        """Where its answers lie."""
        return layout.evaluation(self.asked.model.key, self.benchmark.name, self.run_name)


def asked_models(
    trainings: Sequence[TrainConfig],
    config: EvaluateConfig,
    layout: Layout,
    *,
    so_far: bool = False,
) -> list[Asked]:
    """Every model to evaluate: start models, checkpoints by training and step, further ones.

    Args:
        trainings: Those of the profile.
        config: Settings of the evaluation.
        layout: Where the checkpoints lie.
        so_far: Take the checkpoints that trainings with these settings have written; else all of
            finished trainings.

    Raises:
        PipelineError: If a training has not been run or a checkpoint is missing.
    """
    evaluated = [
        training
        for training in trainings
        if training.evaluate and (not so_far or is_under_way(training, layout))
    ]
    asked: list[Asked] = []
    for training in evaluated:
        models = (trained_so_far if so_far else trained)(training.name, layout)
        last = None if so_far else models[-1]
        asked += [
            Asked(model, _method(training), training.prompt, has_controls=model is last)
            for model in models
        ]
    starts = [
        Asked(resolve(training.model, layout), START_MODEL, training.prompt, has_controls=True)
        for training in evaluated
        if config.base
    ]
    for further in config.models:
        model = resolve(further.model, layout)._replace(key=further.name)
        asked.append(Asked(model, START_MODEL, further.prompt, has_controls=True))
    known = {(each.model.key, each.prompt) for each in asked}
    # A start model may itself be an evaluated checkpoint; it is asked once.
    return [
        start for start in dict.fromkeys(starts) if (start.model.key, start.prompt) not in known
    ] + asked


def jobs_of(
    asked: Sequence[Asked], benchmarks: Sequence[Benchmark], config: EvaluateConfig
) -> list[Job]:
    """Every run: each model on each benchmark, and the controls where they are wanted.

    A control says what a score is worth, so a benchmark without answers has none.
    """
    controls: list[str | None] = [None, *runs_of(config.controls)]
    return [
        Job(each, benchmark, control)
        for each in asked
        for benchmark in benchmarks
        for control in controls
        if control is None or _is_controlled(each, benchmark)
    ]


def evaluate_unit(job: Job, config: EvaluateConfig, layout: Layout) -> Unit:
    """What decides a run's answers and scores."""
    folder = job.folder(layout)
    return Unit(
        name=job.name,
        layout=layout,
        parts={
            "model": job.asked.model.digest,
            "benchmark": job.benchmark.digest,
            "method": job.asked.method,
            "settings": deciding(config),
        },
        outputs=tuple(
            folder / name for name in ("run.json", "answers.jsonl", "verdicts.jsonl", "score.json")
        ),
    )


@task(task_run_name="answer-{part}", cache_policy=NO_CACHE)
@expected_errors_fail
def answer(jobs: Sequence[Job], config: EvaluateConfig, layout: Layout, part: int) -> None:
    """Answer in one child process, on a GPU where there is one; then score each finished run.

    A child that fails leaves what it has answered; its finished runs are recorded before the
    failure is told.
    """
    run_path = layout.root / "evaluation" / f"run-{part}.json"
    with (
        hold_gpus(1, "evaluation") as gpus,
        meter("evaluate", sum(job.benchmark.num_questions for job in jobs)) as progress,
    ):
        write_json(run_path, _run(jobs, config, layout, device="cuda:0" if gpus else "cpu"))
        watcher = _Watcher(jobs, progress.show)
        try:
            run_child(
                [sys.executable, "-m", "model.run_inference", str(run_path)],
                log=layout.root / "evaluation" / f"inference-{part}.log",
                on_line=watcher,
                silence_s=SILENCE_LIMIT_S,
                env={"CUDA_VISIBLE_DEVICES": ",".join(str(gpu) for gpu in gpus)} if gpus else None,
            )
        finally:
            record_finished(jobs, config, layout)


def record_finished(jobs: Sequence[Job], config: EvaluateConfig, layout: Layout) -> None:
    """Score and record every run whose questions are all answered, by this model."""
    for job in jobs:
        folder = job.folder(layout)
        if not (folder / "run.json").exists():
            continue
        is_ours = read_json(folder / "run.json")["model_digest"] == job.asked.model.digest
        answered = read_appended(folder / "answers.jsonl")
        if is_ours and len(answered) >= job.benchmark.num_questions:
            score_folder(folder, job.benchmark.questions, config.scorers)
            evaluate_unit(job, config, layout).commit()


def describe_score(job: Job, layout: Layout) -> str:
    """One line of a finished run: its name and how many answers are right."""
    name = f"{job.asked.model.key} on {job.benchmark.name}, {job.run_name}"
    folder = job.folder(layout)
    scorers: dict[str, Any] = read_json(folder / "score.json")["scorers"]
    if not scorers:
        return f"{name}: answered; the answers are withheld, submit {folder / 'submission.json'}"
    right = [f"{counts['overall']['num_correct']} {key}" for key, counts in scorers.items()]
    return f"{name}: right {', '.join(right)}, of {job.benchmark.num_questions}"


def write_control_reports(
    jobs: Sequence[Job], trainings: Sequence[TrainConfig], config: EvaluateConfig, layout: Layout
) -> None:
    """Say beside each model's answers what its controls mean; nothing to do without controls."""
    if not config.controls:
        return
    model_of = {training.name: training.model for training in trainings if config.base}
    for job in jobs:
        if job.control is None and _is_controlled(job.asked, job.benchmark):
            name = model_of.get(job.asked.model.training or "")
            start = resolve(name, layout).key if name else job.asked.model.key
            write_control_report(
                job.folder(layout).parent,
                job.benchmark.questions,
                prompt=job.asked.prompt,
                scorers=config.scorers,
                start_model=layout.evaluation(start, job.benchmark.name, job.run_name).parent,
            )


def check_declared_step(config: EvaluateConfig, trainings: Sequence[TrainConfig]) -> None:
    """Refuse a declared step that no training saves.

    Raises:
        PipelineError: Names the step and what is saved.
    """
    step = config.declared_step
    evaluated = [training for training in trainings if training.evaluate]
    if step is None or any(step % t.save_steps == 0 and step <= t.max_steps for t in evaluated):
        return
    msg = f"evaluate.declared_step is {step}, but no training saves a checkpoint at that step"
    raise PipelineError(msg)


def _is_controlled(asked: Asked, benchmark: Benchmark) -> bool:
    return asked.has_controls and benchmark.is_test and benchmark.has_answers


def _method(training: TrainConfig) -> str:
    return f"lora-{training.method}" if training.lora else training.method


def _run(
    jobs: Sequence[Job], config: EvaluateConfig, layout: Layout, *, device: str
) -> dict[str, Any]:
    return {
        "jobs": [_job_record(job, layout) for job in jobs],
        "evaluate": config.model_dump(mode="json"),
        "device": device,
        "features": str(layout.workspace / "features"),
    }


def _job_record(job: Job, layout: Layout) -> dict[str, Any]:
    model, benchmark = job.asked.model, job.benchmark
    return {
        "model": model.key,
        "model_path": model.path,
        "model_digest": model.digest,
        "method": job.asked.method,
        "training": model.training,
        "step": model.step if job.asked.method != START_MODEL else None,
        "benchmark": benchmark.name,
        "benchmark_digest": benchmark.digest,
        "questions": str(benchmark.questions_path),
        "questions_sha256": manifest.file_digest(benchmark.questions_path),
        "audio": str(benchmark.audio) if benchmark.audio else None,
        "silence": benchmark.silence,
        "prompt": job.asked.prompt,
        "control": job.control,
        "output": str(job.folder(layout)),
    }


class _Watcher:
    """Add up the child's counts over its runs."""

    def __init__(self, jobs: Sequence[Job], show: Any) -> None:  # noqa: ANN401  Meter.show
        self._answered = {
            f"{job.asked.model.key} {job.benchmark.name} {job.run_name}": 0 for job in jobs
        }
        self._show = show

    def __call__(self, line: str) -> None:
        match = PROGRESS_LINE.search(line)
        if match:
            self._answered[f"{match.group(1)} {match.group(2)}"] = int(match.group(3))
            self._show(sum(self._answered.values()), match.group(1))
