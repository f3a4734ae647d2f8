"""What one process of inference is told, and the files that each of its jobs writes.

A job's folder gets run.json before the first answer (everything that decides the answers; a folder
with another one is started anew) and answers.jsonl, a line as each answer comes, so that a killed
run goes on where it was.
"""

import platform
import time
from dataclasses import asdict
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from model.config import EndpointConfig, EvaluateConfig
from storage.benchmarks.parse import read_questions
from storage.config import Config
from storage.errors import PipelineError
from storage.jsonl import AppendLog, read_json
from storage.layout import name_aside
from storage.manifest import file_digest
from storage.records.evaluation import Answer, Decoding, EvaluationRun, read_answers
from storage.records.prompt import Prompt

BATCH_ON_CPU = 16  # questions: larger ones are no faster
PROGRESS_EVERY_S = 2.0


class InferenceJob(Config):
    """One model asked all questions of one benchmark, in one way."""

    run: EvaluationRun
    """Everything that decides the answers."""
    questions: Path
    """The benchmark's checked questions."""
    audio: Path | None = None
    """Folder of its clips."""
    output: Path
    """Folder of the answers."""
    endpoint: EndpointConfig | None = None
    """Where the model answers; None: here."""
    allow_unreadable: bool = True
    """Whether questions whose clip is too short for the model count as wrong; else refused."""

    @property
    def model_path(self) -> str:
        """Folder or hub name of the weights."""
        return self.run.model.path

    @property
    def prompt(self) -> Prompt:
        """Prompt to ask with."""
        return cast("Prompt", self.run.prompt)  # only an imported run has none


class InferenceRun(Config):
    """Everything that one process does."""

    jobs: tuple[InferenceJob, ...]
    """In this order, but all jobs of one model together."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Settings."""
    kept: Path | None = None
    """Folder of the answers that a workspace's experiments share; None: none are kept."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda:0`."""
    features: Path | None = None
    """Folder that keeps clips' features."""


def read_run(path: str | Path) -> InferenceRun:
    """Read RUN.json.

    Raises:
        PipelineError: If it is missing or not an inference run; names what is wrong in it.
    """
    try:
        return InferenceRun.model_validate(read_json(Path(path)))
    except ValidationError as error:
        msg = f"{path} is no inference run: {error}"
        raise PipelineError(msg) from error


def decoding_of(config: EvaluateConfig, device: str) -> Decoding:
    """How a device, `cpu` or e.g. `cuda:0`, decodes under these settings."""
    on_gpu = device.startswith("cuda")
    usual = "bf16" if on_gpu else "fp32"
    return Decoding(
        max_new_tokens=config.max_new_tokens,
        batch_size=config.batch_size or (None if on_gpu else BATCH_ON_CPU),
        precision=usual if config.precision == "auto" else config.precision,
    )


def installed_versions() -> dict[str, str]:
    """Of Python and of the packages that decide answers."""
    names = ("torch", "transformers", "soundfile", "soxr")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


class JobFolder:
    """The files of one job."""

    def __init__(self, job: InferenceJob) -> None:
        """Look at what an earlier run left; answers under another run.json count for nothing.

        Raises:
            PipelineError: If the questions are not those that the job was made for, or what lies
                there is of an older version.
        """
        if file_digest(job.questions) != job.run.questions_sha256:
            msg = f"{job.questions} has changed since evaluation was planned: run evaluate again"
            raise PipelineError(msg)
        self.job = job
        self.questions = read_questions(job.questions)
        before = EvaluationRun.read(self._run_path) if self._run_path.exists() else None
        is_same = before is not None and before.gives_answers_of(job.run)
        self._is_other_run = not is_same
        self._run = job.run.with_notes_of(before) if before and is_same else job.run
        self._log = AppendLog(job.output / "answers.jsonl")
        known = {question.id for question in self.questions}
        answers = read_answers(self._log.path) if is_same else []
        self.answered = {answer.id: answer for answer in answers if answer.id in known}

    @property
    def num_answered(self) -> int:
        """Questions that have a line."""
        return len(self.answered)

    @property
    def is_done(self) -> bool:
        """Whether every question has one."""
        return self.num_answered == len(self.questions)

    def set_other_run_aside(self) -> None:
        """Keep the answers of another run elsewhere: here a failure would leave them to be scored.

        They may have cost GPU hours.
        """
        if self._is_other_run and self._log.path.exists():
            aside = name_aside(self.job.output)
            self.job.output.rename(aside)
            say(f"{self.job.run.name}: what was there is kept in {aside}")

    def start(self, revision: str | None = None) -> None:
        """Write run.json; the answers of an earlier run stay.

        Args:
            revision: Commit of a model from the hub, whose name alone may mean another one
                tomorrow; answers of another commit go.
        """
        if self._is_other_run or self._run.model.revision != revision:
            self.answered = {}
            self._log.path.unlink(missing_ok=True)
        model = self._run.model.model_copy(update={"revision": revision})
        self._run = self._run.model_copy(update={"model": model})
        for name in ("verdicts.jsonl", "score.json"):
            (self.job.output / name).unlink(missing_ok=True)
        self._run.write(self._run_path)

    def append(self, answer: Answer) -> None:
        """Add one answer."""
        self._log.append(asdict(answer))
        self.answered[answer.id] = answer

    def finish(self, seconds: float) -> None:
        """Note the time that answering took, over all runs."""
        total = round(self._run.seconds + seconds, 2)
        self._run = self._run.model_copy(update={"seconds": total})
        self._run.write(self._run_path)

    @property
    def _run_path(self) -> Path:
        return self.job.output / "run.json"


class Progress:
    """Lines for a parent, e.g. `grpo-step-100 on demo answer: 96/150 answered, eta 0:00:12`."""

    def __init__(self, name: str, *, num_before: int, num_total: int) -> None:
        """Start the clock."""
        self._name = name
        self._num_before = num_before
        self._num_total = num_total
        self._started_s = self._told_s = time.monotonic()

    def show(self, num_answered: int) -> None:
        """Tell, unless it was just told."""
        now_s = time.monotonic()
        if now_s - self._told_s < PROGRESS_EVERY_S or num_answered == self._num_total:
            return
        self._told_s = now_s
        per_question_s = (now_s - self._started_s) / max(1, num_answered - self._num_before)
        left = timedelta(seconds=round(per_question_s * (self._num_total - num_answered)))
        say(f"{self._name}: {num_answered}/{self._num_total} answered, eta {left}")

    def close(self) -> None:
        """Tell the end."""
        seconds = time.monotonic() - self._started_s
        say(f"{self._name}: {self._num_total}/{self._num_total} answered, in {seconds:.1f} s")


def say(line: str) -> None:
    """Tell the parent, who reads the output."""
    print(line, flush=True)  # noqa: T201  what the parent reads
