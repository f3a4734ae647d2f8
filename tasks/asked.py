"""Who is asked what: models by their role, runs of each on each benchmark, controls of the quoted.

A unit is one model on one benchmark with one prompt, or with one control of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from model.checkpoints import end_of
from model.config import EndpointConfig, EvaluateConfig, TrainConfig
from model.infer.jobs import installed_versions
from model.score.controls import runs_of
from storage.benchmarks.prepare import Benchmark
from storage.config import deciding
from storage.errors import PipelineError
from storage.layout import Layout
from storage.records.evaluation import Decoding, EvaluationRun, Role, RunKey, Score
from storage.records.leading import Done, ProfileFacts, leading
from storage.records.model import ModelRef
from storage.records.prompt import Prompt
from tasks.inputs import asked_benchmarks, prepare_benchmarks
from tasks.models import is_gone, resolve, trained, trained_so_far
from tasks.stage import Unit
from tasks.train import is_finished, is_under_way


@dataclass(frozen=True, slots=True)
class Asked:
    """A model and how it is asked."""

    model: ModelRef
    """Weights."""
    role: Role
    """What it is to the profile."""
    prompt: Prompt
    """Prompt to ask with."""
    method: Literal["grpo", "sft"] | None = None
    """How it was trained here; None: it was not."""
    variant: Literal["full", "lora"] | None = None
    """Which weights were trained here; None: none."""
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


def evaluate_unit(job: Job, config: EvaluateConfig, layout: Layout) -> Unit:
    """What decides a run's answers and scores."""
    asked, folder = job.asked, job.folder(layout)
    return Unit(
        name=f"evaluate/{job.key.folder}",
        layout=layout,
        parts={
            "model": asked.model.digest,
            "benchmark": job.benchmark.digest,
            "prompt": asked.prompt.sha256,
            "labels": [asked.role, asked.method, asked.variant],
            "settings": deciding(config),
        },
        outputs=tuple(
            folder / name for name in ("run.json", "answers.jsonl", "verdicts.jsonl", "score.json")
        ),
        impossible="not evaluated: its checkpoint is gone" if is_gone(asked.model) else "",
    )


def asked_models(
    trainings: Sequence[TrainConfig],
    config: EvaluateConfig,
    layout: Layout,
    *,
    so_far: bool = False,
) -> list[Asked]:
    """Every model to evaluate: start models, checkpoints by training and step, further ones.

    `so_far` takes the checkpoints that trainings with these settings have written; else all of them
    are taken, and a training that has not been run is refused.
    """
    asked: list[Asked] = []
    starts: dict[tuple[str, str], Asked] = {}
    start_of: dict[str, str] = {}
    for training in trainings:
        if not training.evaluate or (so_far and not is_under_way(training, layout)):
            continue
        is_whole = not so_far or is_finished(training, layout)
        variant = "lora" if training.lora else "full"
        asked += [
            Asked(model, "checkpoint", training.prompt, training.method, variant)
            for model in (trained if is_whole else trained_so_far)(training.name, layout)
        ]
        start = Asked(resolve(training.model, layout), "start", training.prompt)
        starts[start.digests] = start
        start_of[training.name] = start.model.digest
    for entry in config.models:
        if isinstance(entry, EndpointConfig):
            there = ModelRef(key=entry.name, path=entry.url, digest=entry.digest)
            asked.append(Asked(there, "other", entry.prompt, endpoint=entry))
        else:
            model = resolve(entry.model, layout).model_copy(update={"key": entry.name})
            role = "start" if (model.digest, entry.prompt.sha256) in starts else "other"
            asked.append(Asked(model, role, entry.prompt))
    # A start model may itself be an evaluated checkpoint or a further model; it is asked once. A
    # checkpoint with the weights of its own training's start learned nothing and is no start model.
    known = {
        asking.digests
        for asking in asked
        if (made := asking.model.training) is None or start_of.get(made.name) != asking.model.digest
    }
    wanted = [start for key, start in starts.items() if key not in known] if config.base else []
    return wanted + asked


def jobs_of(
    trainings: Sequence[TrainConfig],
    config: EvaluateConfig,
    layout: Layout,
    *,
    so_far: bool = False,
) -> list[Job]:
    """Every proper run: each of `asked_models` on each benchmark, which is made ready."""
    asked = asked_models(trainings, config, layout, so_far=so_far)
    benchmarks = prepare_benchmarks(config, layout)
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
    leads = leading_steps(jobs, trainings, config, layout)
    starts = starts_of(trainings, layout).values()
    return [
        Job(job.asked, job.benchmark, control)
        for job in jobs
        if job.benchmark.is_test and job.benchmark.has_answers
        if job.asked.role != "checkpoint"
        or (made := job.asked.model.training) is None
        or leads.get(made.name) == made.step
        or job.asked.digests in starts
        for control in controls
    ]


def leading_steps(
    jobs: Sequence[Job], trainings: Sequence[TrainConfig], config: EvaluateConfig, layout: Layout
) -> dict[str, int]:
    """The step of each training that leads by the proper runs that stand and the first scorer."""
    done: list[Done] = []
    for job in jobs:
        if evaluate_unit(job, config, layout).stands():
            folder = job.folder(layout)
            counts = Score.read(folder / "score.json").scorers.get(config.scorers[0])
            run = EvaluationRun.read(folder / "run.json")
            done.append(Done(run, run.num_questions, counts and counts.overall))
    tests = {job.benchmark for job in jobs if job.benchmark.is_test}
    steps: dict[str, int] = {}
    for training in trainings:
        end = end_of(training, layout.training(training.name)) or training.max_steps
        found = leading(
            training.name,
            training.prompt.name,
            [step for step in training.saved_steps if step <= end],
            done,
            num_asked=sum(benchmark.num_questions for benchmark in tests),
            declared=config.declared_step,
        )
        steps |= {training.name: found.step} if found else {}
    return steps


def starts_of(trainings: Sequence[TrainConfig], layout: Layout) -> dict[str, tuple[str, str]]:
    """Digest of the model that each evaluated training starts from, and its prompt."""
    return {
        training.name: (resolve(training.model, layout).digest, training.prompt.sha256)
        for training in trainings
        if training.evaluate
    }


def profile_facts(
    trainings: Sequence[TrainConfig], config: EvaluateConfig, layout: Layout
) -> ProfileFacts:
    """What the profile asks and of whom, as far as its trainings have come."""
    asked = asked_models(trainings, config, layout, so_far=True)
    return ProfileFacts(
        models=frozenset(each.digests for each in asked),
        benchmarks=asked_benchmarks(config, layout),
    )


def check_declared_step(config: EvaluateConfig, trainings: Sequence[TrainConfig]) -> None:
    """Refuse a declared step that no training saves."""
    step = config.declared_step
    evaluated = [training for training in trainings if training.evaluate]
    if step is not None and not any(step in training.saved_steps for training in evaluated):
        msg = f"evaluate.declared_step is {step}, but no training saves a checkpoint at that step"
        raise PipelineError(msg)
