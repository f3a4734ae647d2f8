"""What one process of inference is told, and the files that each of its jobs writes.

A job's folder gets run.json before the first answer (everything that decides the answers; a folder
with another one is started anew) and answers.jsonl, a line as each answer comes, so that a killed
run goes on where it was.
"""

import platform
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from model.config import EvaluateConfig, PromptName
from model.prompt import TEMPLATES
from storage.benchmarks.parse import read_questions
from storage.config import Config
from storage.errors import PipelineError
from storage.jsonl import Record, append_line, read_appended, read_json, write_json, write_jsonl
from storage.manifest import file_digest


class InferenceJob(Config):
    """One model asked all questions of one benchmark, in one way."""

    model: str
    """Row name, e.g. `grpo-step-100`."""
    model_path: str
    """Folder or hub name."""
    model_digest: str
    """Stands for its weights."""
    method: str
    """E.g. `GRPO`."""
    training: str | None = None
    """The training that made it."""
    step: int | None = None
    """Its optimiser step."""
    benchmark: str
    """Name of the benchmark."""
    questions: Path
    """Its checked questions."""
    questions_sha256: str
    """Of that file."""
    benchmark_digest: str = ""
    """Changes when a question or a clip does; answers under another one count for nothing."""
    audio: Path | None = None
    """Folder of its clips."""
    silence: bool = False
    """Ask with zeros instead of clips, to try things."""
    prompt: PromptName = "answer"
    """Prompt to ask with."""
    control: str | None = None
    """`silence`, `shuffled-audio` or `cyclic-shift-1` to `-3`."""
    output: Path
    """Folder of the answers."""

    @property
    def name(self) -> str:
        """As progress lines have it."""
        control = f"+{self.control}" if self.control else ""
        return f"{self.model} on {self.benchmark} {self.prompt}{control}"


class InferenceRun(Config):
    """Everything that one process does."""

    jobs: tuple[InferenceJob, ...]
    """In this order, but all jobs of one model together."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Settings."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda:0`."""
    features: Path | None = None
    """Folder that keeps clips' features."""


def read_run(path: Path) -> InferenceRun:
    """Read RUN.json.

    Raises:
        PipelineError: If it is missing or not an inference run; names what is wrong in it.
    """
    try:
        return InferenceRun.model_validate(read_json(path))
    except ValidationError as error:
        msg = f"{path} is no inference run: {error}"
        raise PipelineError(msg) from error


def record_of(job: InferenceJob, config: EvaluateConfig, precision: str) -> Record:
    """What run.json says: everything that decides the answers."""
    return {
        "model": job.model,
        "model_path": job.model_path,
        "model_digest": job.model_digest,
        "method": job.method,
        "training": job.training,
        "step": job.step,
        "benchmark": job.benchmark,
        "benchmark_sha256": job.questions_sha256,
        "benchmark_digest": job.benchmark_digest,
        "silence": job.silence,
        "prompt": job.prompt,
        "prompt_template": TEMPLATES[job.prompt],
        "control": job.control,
        "decode": {
            "do_sample": False,
            "max_new_tokens": config.max_new_tokens,
            "batch_size": config.batch_size,
            "precision": precision,
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "soundfile", "soxr")},
        },
    }


class JobFolder:
    """The files of one job."""

    def __init__(self, job: InferenceJob, record: Record) -> None:
        """Look at what an earlier run left; answers under another run.json count for nothing.

        Raises:
            PipelineError: If the questions are not those that the job was made for.
        """
        if file_digest(job.questions) != job.questions_sha256:
            msg = f"{job.questions} has changed since evaluation was planned: run evaluate again"
            raise PipelineError(msg)
        self.job = job
        self.questions = read_questions(job.questions)
        self._record = record
        before = read_json(self._run) if self._run.exists() else {}
        self._seconds = float(before.pop("seconds", None) or 0.0)
        self._revision: str | None = before.pop("model_revision", None)
        known = {question.id for question in self.questions}
        self._is_other_run = before != record
        lines = [] if self._is_other_run else read_appended(self._answers)
        self.answered: dict[str, Record] = {
            line["id"]: line for line in lines if line.get("id") in known
        }

    @property
    def num_answered(self) -> int:
        """Questions that have a line."""
        return len(self.answered)

    @property
    def is_done(self) -> bool:
        """Whether every question has one."""
        return self.num_answered == len(self.questions)

    def drop_other_run(self) -> None:
        """Remove the answers of another run, before a failure can leave them to be scored."""
        if self._is_other_run:
            for name in ("answers.jsonl", "run.json", "verdicts.jsonl", "score.json"):
                (self.job.output / name).unlink(missing_ok=True)

    def start(self, revision: str | None = None) -> None:
        """Write run.json, and the whole lines of an earlier run; a torn last line goes.

        Args:
            revision: Commit of a model from the hub, whose name alone may mean another one
                tomorrow; answers of another commit go.
        """
        if self._revision != revision:
            self.answered = {}
        self._revision = revision
        for name in ("verdicts.jsonl", "score.json"):
            (self.job.output / name).unlink(missing_ok=True)
        write_jsonl(self._answers, self.answered.values())
        self._write_run()

    def append(self, line: Record) -> None:
        """Add one answer."""
        append_line(self._answers, line)
        self.answered[line["id"]] = line

    def finish(self, seconds: float) -> None:
        """Note the time that answering took, over all runs."""
        self._seconds = round(self._seconds + seconds, 2)
        self._write_run()

    def _write_run(self) -> None:
        noted = {"model_revision": self._revision, "seconds": self._seconds}
        write_json(self._run, {**self._record, **noted})

    @property
    def _run(self) -> Path:
        return self.job.output / "run.json"

    @property
    def _answers(self) -> Path:
        return self.job.output / "answers.jsonl"
