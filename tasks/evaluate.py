"""Evaluate: models answer the benchmarks in child processes, and every scorer judges the answers.

A unit is one model on one benchmark with one prompt, or with one control of it. The answers are
appended as they come, so that a killed run goes on where it was; scoring follows in this process,
without torch.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prefect import task
from prefect.cache_policies import NO_CACHE

from model.config import EndpointConfig, EvaluateConfig, TrainConfig
from model.infer.jobs import InferenceJob, InferenceRun, decoding_of, installed_versions
from model.score.control_report import write_control_report
from model.score.controls import runs_of
from model.score.scorers import judge_lines, score_folder
from storage.benchmarks.prepare import Benchmark
from storage.config import deciding
from storage.errors import PipelineError
from storage.jsonl import Record, write_json
from storage.layout import Layout
from storage.records.evaluation import (
    Answer,
    Decoding,
    EvaluationRun,
    Leading,
    Role,
    RunKey,
    Score,
    Tally,
    leading,
    read_answers,
)
from storage.records.model import ModelRef
from storage.records.profile import ProfileFacts
from storage.records.prompt import Prompt
from storage.records.question import list_ids
from tasks.inputs import asked_benchmarks
from tasks.models import is_gone, resolve, trained, trained_so_far
from tasks.running.child_process import run_child
from tasks.running.console import RecordFile, Show, meter, say
from tasks.running.gpus import hold_gpus
from tasks.stage import Unit, expected_errors_fail, is_transient
from tasks.train import is_finished, is_under_way

SILENCE_LIMIT_S = 1800.0  # loading 7B weights from a cold disk takes minutes, a batch seconds


@dataclass(frozen=True, slots=True)
class Asked:
    """A model and how it is asked."""

    model: ModelRef
    """Weights."""
    role: Role
    """What it is to the profile."""
    method: Literal["grpo", "sft"] | None
    """How it was trained here; None: it was not."""
    variant: Literal["full", "lora"] | None
    """Which weights were trained here; None: none."""
    prompt: Prompt
    """Prompt to ask with."""
    endpoint: EndpointConfig | None = field(default=None, hash=False)
    """Where it answers; None: here."""

    @property
    def digests(self) -> tuple[str, str]:
        """Of the model and of the prompt."""
        return self.model.digest, self.prompt.sha256


@dataclass(frozen=True, slots=True)
class Job:
    """One run of one model over one benchmark."""

    asked: Asked
    benchmark: Benchmark
    control: str | None

    @property
    def key(self) -> RunKey:
        """Which evaluation."""
        return RunKey(
            model=self.asked.model.key,
            benchmark=self.benchmark.key,
            prompt=self.asked.prompt.name,
            control=self.control,
        )

    @property
    def name(self) -> str:
        """The unit's name."""
        return f"evaluate/{self.key.folder}"

    def folder(self, layout: Layout) -> Path:
        """Where its answers lie."""
        return layout.evaluations / self.key.folder

    def run(self, decoding: Decoding) -> EvaluationRun:
        """Everything that decides its answers."""
        asked, benchmark = self.asked, self.benchmark
        if asked.endpoint:
            elsewhere = {"precision": "theirs", "parameters": asked.endpoint.parameters}
            decoding = decoding.model_copy(update={"batch_size": 1, **elsewhere})
        return EvaluationRun(
            key=self.key,
            model=asked.model,
            role=asked.role,
            method=asked.method,
            variant=asked.variant,
            benchmark_name=benchmark.name,
            benchmark_digest=benchmark.digest,
            questions_sha256=benchmark.questions_sha256,
            num_questions=benchmark.num_questions,
            silence=benchmark.silence,
            prompt=asked.prompt,
            decoding=decoding,
            versions=installed_versions(),
        )


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
        so_far: Take the checkpoints that trainings with these settings have written; else all, of
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
        is_whole = not so_far or is_finished(training, layout)
        models = (trained if is_whole else trained_so_far)(training.name, layout)
        variant = "lora" if training.lora else "full"
        asked += [
            Asked(model, "checkpoint", training.method, variant, training.prompt)
            for model in models
        ]
    starts = {
        (start.digest, training.prompt.sha256): _asked_as_it_is("start", start, training.prompt)
        for training in evaluated
        if (start := resolve(training.model, layout))
    }
    for entry in config.models:
        if isinstance(entry, EndpointConfig):
            there = ModelRef(key=entry.name, path=entry.url, digest=entry.digest)
            asked.append(Asked(there, "other", None, None, entry.prompt, entry))
            continue
        model = resolve(entry.model, layout).model_copy(update={"key": entry.name})
        role = "start" if (model.digest, entry.prompt.sha256) in starts else "other"
        asked.append(_asked_as_it_is(role, model, entry.prompt))
    # A start model may itself be an evaluated checkpoint or a further model; it is asked once. A
    # checkpoint with the weights of its own training's start learned nothing and is no start model.
    start_of = {training.name: resolve(training.model, layout).digest for training in evaluated}
    known = {
        asking.digests
        for asking in asked
        if (made_by := asking.model.training) is None
        or start_of.get(made_by.name) != asking.model.digest
    }
    wanted = [start for key, start in starts.items() if key not in known] if config.base else []
    return wanted + asked


def _asked_as_it_is(role: Role, model: ModelRef, prompt: Prompt) -> Asked:
    return Asked(model, role, None, None, prompt)


def jobs_of(asked: Sequence[Asked], benchmarks: Sequence[Benchmark]) -> list[Job]:
    """Every proper run: each model on each benchmark."""
    return [Job(each, benchmark, None) for each in asked for benchmark in benchmarks]


def control_jobs_of(
    jobs: Sequence[Job], trainings: Sequence[TrainConfig], config: EvaluateConfig, layout: Layout
) -> list[Job]:
    """The controls of the models that are quoted: steps that lead, start models, further ones.

    A control says what a score is worth, so a benchmark without answers has none. Which step leads
    is told from the proper runs that are there.
    """
    controls = runs_of(config.controls)
    if not controls:
        return []
    steps = {
        training.name: leading.step
        for training in trainings
        if (leading := leading_of(training, jobs, config, layout))
    }
    starts = set(_starts(trainings, layout).values())
    return [
        Job(job.asked, job.benchmark, control)
        for job in jobs
        if job.benchmark.is_test and job.benchmark.has_answers
        if _leads(job.asked, steps) or job.asked.digests in starts
        for control in controls
    ]


def leading_of(
    training: TrainConfig, jobs: Sequence[Job], config: EvaluateConfig, layout: Layout
) -> Leading | None:
    """The step of a training that leads by the proper runs that are done."""
    answered: dict[int, int] = {}
    validation: dict[int, Tally] = {}
    tests = {
        job.benchmark.key: job.benchmark.num_questions for job in jobs if job.benchmark.is_test
    }
    for job in jobs:
        made = job.asked.model.training if job.asked.role == "checkpoint" else None
        is_own = made is not None and made.name == training.name
        if made is None or not is_own or not evaluate_unit(job, config, layout).stands():
            continue
        if job.benchmark.is_test:
            answered[made.step] = answered.get(made.step, 0) + job.benchmark.num_questions
        else:
            score = Score.read(job.folder(layout) / "score.json")
            validation[made.step] = score.by_scorer[config.scorers[0]].overall
    asked = sum(tests.values())
    return leading(
        training.saved_steps,
        {step: Tally(number, asked) for step, number in answered.items()},
        validation,
        declared=config.declared_step,
    )


def _starts(trainings: Sequence[TrainConfig], layout: Layout) -> dict[str, tuple[str, str]]:
    """Digest of the model that each evaluated training starts from, and its prompt."""
    return {
        training.name: (resolve(training.model, layout).digest, training.prompt.sha256)
        for training in trainings
        if training.evaluate
    }


def _leads(asked: Asked, steps: Mapping[str, int]) -> bool:
    """Whether it is the step of its training that leads, or of no training."""
    made = asked.model.training if asked.role == "checkpoint" else None
    return made is None or steps.get(made.name) == made.step


def evaluate_unit(job: Job, config: EvaluateConfig, layout: Layout) -> Unit:
    """What decides a run's answers and scores."""
    folder = job.folder(layout)
    return Unit(
        name=job.name,
        layout=layout,
        parts={
            "model": job.asked.model.digest,
            "benchmark": job.benchmark.digest,
            "prompt": job.asked.prompt.sha256,
            "labels": [job.asked.role, job.asked.method, job.asked.variant],
            "settings": deciding(config),
        },
        outputs=tuple(
            folder / name for name in ("run.json", "answers.jsonl", "verdicts.jsonl", "score.json")
        ),
        impossible="not evaluated: its checkpoint is gone" if is_gone(job.asked.model) else "",
    )


@task(
    task_run_name="answer-{part}",
    cache_policy=NO_CACHE,
    retries=2,  # answers are kept
    retry_delay_seconds=[10, 60],
    retry_condition_fn=is_transient,
)
@expected_errors_fail
def answer(jobs: Sequence[Job], config: EvaluateConfig, layout: Layout, part: int) -> None:
    """Answer in one child process, on a GPU where there is one; then score each finished run.

    A child that fails leaves what it has answered; its finished runs are recorded before the
    failure is told.
    """
    run_path = layout.evaluations / f"run-{part}.json"
    elsewhere = any(job.asked.endpoint for job in jobs)
    module = "model.run_endpoint" if elsewhere else "model.run_inference"
    with (
        hold_gpus(0 if elsewhere else 1, "evaluation") as gpus,
        meter("evaluate", sum(job.benchmark.num_questions for job in jobs)) as progress,
    ):
        device = "cuda:0" if gpus else "cpu"
        runs = {job: job.run(decoding_of(config, device)) for job in jobs}
        write_json(run_path, _inference(runs, config, layout, device).model_dump(mode="json"))
        try:
            run_child(
                [sys.executable, "-m", module, str(run_path)],
                log=layout.evaluations / f"inference-{part}.log",
                on_line=_Progress(jobs, config.scorers[0], layout, progress.show),
                silence_s=SILENCE_LIMIT_S,
                env={"CUDA_VISIBLE_DEVICES": ",".join(str(gpu) for gpu in gpus)} if gpus else None,
            )
        finally:
            record_finished(runs, config, layout)


def record_finished(
    runs: Mapping[Job, EvaluationRun], config: EvaluateConfig, layout: Layout
) -> None:
    """Score and record every run whose questions are all answered, by this model."""
    told: set[str] = set()
    for job, run in runs.items():
        folder = job.folder(layout)
        if not (folder / "run.json").exists():
            continue
        before = EvaluationRun.read(folder / "run.json")
        answers = read_answers(folder / "answers.jsonl")
        if before.gives_answers_of(run) and len(answers) >= run.num_questions:
            run.with_notes_of(before).write(folder / "run.json")
            score_folder(folder, job.benchmark.questions, config.scorers)
            evaluate_unit(job, config, layout).commit()
            told |= _remarks(job, answers)
    for remark in sorted(told):
        say(f"  {remark}")


def _remarks(job: Job, answers: Sequence[Answer]) -> set[str]:
    """What to know of the clips that were asked about."""
    cut = [answer.id for answer in answers if answer.cut]
    failed = {answer.id: answer.error for answer in answers if answer.error}
    name = job.benchmark.name
    told: set[str] = set()
    if cut:
        told.add(f"{name}: {len(cut)} clips are longer than the model hears: {list_ids(cut)}")
    if failed:
        first = next(iter(failed))
        ids = list_ids(list(failed))
        told.add(
            f"{name}: {len(failed)} not asked, count as wrong: {ids}. {first}: {failed[first]}"
        )
    return told


def describe_score(job: Job, layout: Layout) -> str:
    """One line of a finished run: its name and how many answers are right."""
    name = f"{job.asked.model.key} on {job.benchmark.name}, {job.key.folder.name}"
    folder = job.folder(layout)
    by_scorer = Score.read(folder / "score.json").by_scorer
    if not by_scorer:
        return f"{name}: answered; the answers are withheld, submit {folder / 'submission.json'}"
    right = [f"{counts.overall.num_correct} {scorer}" for scorer, counts in by_scorer.items()]
    return f"{name}: right {', '.join(right)}, of {job.benchmark.num_questions}"


def write_control_reports(
    jobs: Sequence[Job], trainings: Sequence[TrainConfig], config: EvaluateConfig, layout: Layout
) -> None:
    """Say beside each model's answers what its controls mean.

    Args:
        jobs: The proper runs and the controls.
        trainings: Those of the profile.
        config: Settings of the evaluation.
        layout: Where the answers are.
    """
    start_of = _starts(trainings, layout)
    key_of = {job.asked.digests: job.asked.model.key for job in jobs}
    controlled = {job.key.proper.folder for job in jobs if job.control is not None}
    for job in jobs:
        if job.control is None and job.key.folder in controlled:
            made = job.asked.model.training if job.asked.role == "checkpoint" else None
            start = start_of[made.name][0] if made else job.asked.model.digest
            write_control_report(
                layout.evaluations,
                job.key,
                job.benchmark.questions,
                scorers=config.scorers,
                start=key_of.get((start, job.asked.prompt.sha256)),
            )


def profile_facts(
    trainings: Sequence[TrainConfig], config: EvaluateConfig, layout: Layout
) -> ProfileFacts:
    """What the profile asks and of whom, as far as its trainings have come.

    Raises:
        PipelineError: If a benchmark's questions cannot be had.
    """
    asked = asked_models(trainings, config, layout, so_far=True)
    return ProfileFacts(
        models=frozenset(each.digests for each in asked),
        benchmarks=asked_benchmarks(config, layout),
    )


def check_declared_step(config: EvaluateConfig, trainings: Sequence[TrainConfig]) -> None:
    """Refuse a declared step that no training saves.

    Raises:
        PipelineError: Names the step and what is saved.
    """
    step = config.declared_step
    evaluated = [training for training in trainings if training.evaluate]
    if step is None or any(step in training.saved_steps for training in evaluated):
        return
    msg = f"evaluate.declared_step is {step}, but no training saves a checkpoint at that step"
    raise PipelineError(msg)


def _inference(
    runs: Mapping[Job, EvaluationRun], config: EvaluateConfig, layout: Layout, device: str
) -> InferenceRun:
    return InferenceRun(
        jobs=tuple(
            InferenceJob(
                run=run,
                questions=job.benchmark.questions_path,
                audio=job.benchmark.audio,
                output=job.folder(layout),
                endpoint=job.asked.endpoint,
                allow_unreadable=job.benchmark.allow_unreadable,
            )
            for job, run in runs.items()
        ),
        evaluate=config,
        device=device,
        features=layout.workspace / "features",
    )


class _Progress:
    """Shows how many questions are answered, over all of a child's runs, as the answers come.

    Beside the count stands the last run's accuracy so far, by task.
    """

    def __init__(self, jobs: Sequence[Job], scorer: str, layout: Layout, show: Show) -> None:
        self._answers = {job: RecordFile(job.folder(layout) / "answers.jsonl") for job in jobs}
        self._right: dict[Job, dict[str, list[bool]]] = {job: {} for job in jobs}
        self._scorer = scorer
        self._show = show

    def __call__(self, _line: str) -> None:
        """The child has said something: look how far it is."""
        for job, answers in self._answers.items():
            if answers.look():
                shares = self._judge(job, answers.new)
                done = sum(each.num_lines for each in self._answers.values())
                self._show(done, " ".join([job.asked.model.key, *shares]))

    def _judge(self, job: Job, lines: Sequence[Record]) -> list[str]:
        """E.g. `sound 61.2`, percent right so far; nothing where the answers are withheld."""
        right = self._right[job]
        for question, verdict in judge_lines(job.benchmark.questions, job.control, lines):
            if (mark := verdict.of(self._scorer)) is not None:
                right.setdefault(question.task, []).append(mark)
        return [f"{task} {100 * sum(marks) / len(marks):.1f}" for task, marks in right.items()]
