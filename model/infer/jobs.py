"""What one process of inference is told, the questions as its jobs put them, and each job's files.

A job's folder gets run.json before the first answer (everything that decides the answers) and
answers.jsonl, a line as each answer comes, so that a killed run goes on where it was. Knows no
torch.
"""

import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar, cast

import soundfile  # pyright: ignore[reportMissingTypeStubs]  it has none

from model.answers import extract_answer
from model.config import EndpointConfig, EvaluateConfig
from model.score.controls import SILENCE_S, asked_questions, shuffled_audio
from storage.audio import SAMPLE_RATE_HZ, find_clip
from storage.benchmarks.parse import read_questions
from storage.config import Config
from storage.errors import PipelineError
from storage.jsonl import AppendLog
from storage.layout import name_aside
from storage.manifest import file_digest
from storage.records.document import Document
from storage.records.evaluation import Answer, Decoding, EvaluationRun, read_answers
from storage.records.prompt import Prompt
from storage.records.question import Question

BATCH_ON_CPU = 16  # questions: larger ones are no faster
PROGRESS_EVERY_S = 2.0
STAND_IN_SILENCE_S = 10.0  # of a benchmark asked without its audio, to try things


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
    def prompt(self) -> Prompt:
        """Prompt to ask with."""
        return cast("Prompt", self.run.prompt)  # only an imported run has none

    @property
    def decoding(self) -> Decoding:
        """How completions are decoded."""
        return cast("Decoding", self.run.decoding)


class InferenceRun(Document):
    """Everything that one process does: RUN.json."""

    what: ClassVar[str] = "an inference run"

    jobs: tuple[InferenceJob, ...]
    """In this order, but all jobs of one model together."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Settings."""
    kept: Path | None = None
    """Folder of the answers that a workspace's experiments share; None: none are kept."""
    device: str = "cpu"
    """`cpu` or e.g. `cuda:0`."""
    features: Path | None = None
    """Folder that keeps clips' features."""


def decoding_of(config: EvaluateConfig, device: str) -> Decoding:
    """How a device, `cpu` or e.g. `cuda:0`, decodes under these settings."""
    on_gpu = device.startswith("cuda")
    usual = "bf16" if on_gpu else "fp32"
    return Decoding(
        max_new_tokens=config.max_new_tokens,
        batch_size=config.batch_size or (None if on_gpu else BATCH_ON_CPU),
        decode=config.decode,
        precision=usual if config.precision == "auto" else config.precision,
    )


def installed_versions() -> dict[str, str]:
    """Of Python and of the packages that decide answers."""
    names = ("torch", "transformers", "soundfile", "soxr")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


@dataclass(frozen=True, slots=True)
class Item:
    """One question as it is put to the model."""

    id: str
    """Of the question."""
    text: str
    """What follows the clip, with the choices."""
    clip: Path | None
    """Its audio; None: silence."""
    silence_s: float = 0.0
    """Seconds of zeros where there is no clip."""
    system: str | None = None
    """The system's text; None: the model's own."""
    error: str | None = None
    """Why it cannot be asked, where that is known before."""
    choices: tuple[str, ...] = ()
    """As they are shown."""

    @property
    def num_samples(self) -> int:
        """About how many there are to hear, told from the clip's header, or its size."""
        if self.clip is None:
            return round(self.silence_s * SAMPLE_RATE_HZ)
        try:
            return round(float(soundfile.info(self.clip).duration) * SAMPLE_RATE_HZ)
        except (soundfile.LibsndfileError, OSError):  # ffmpeg may read it all the same
            return self.clip.stat().st_size // 2 if self.clip.exists() else 0


def items_of(job: InferenceJob, questions: Sequence[Question]) -> list[Item]:
    """The questions as a job puts them: prompt, order of choices, and what is heard."""
    control, prompt = job.run.key.control, job.prompt
    shuffled = shuffled_audio(questions) if control == "shuffled-audio" else {}
    items: list[Item] = []
    for question in asked_questions(questions, control):
        clip, silence_s, error = None, 0.0, None
        if control == "silence":
            silence_s = SILENCE_S
        elif job.run.silence or job.audio is None:
            silence_s = STAND_IN_SILENCE_S
        else:
            (name,) = shuffled.get(question.id, question.clips)
            clip = find_clip(job.audio, name)
            error = None if clip else f"{name} is missing in {job.audio}"
        text = prompt.fill(question.question, question.choices)
        choices = question.choices
        items.append(Item(question.id, text, clip, silence_s, prompt.system, error, choices))
    return items


def not_asked(item: Item, reason: str) -> Answer:
    """The line of a question that could not be asked, or was refused: it counts as wrong."""
    return Answer(item.id, "", None, finished=False, error=reason)


def read_answer(
    item: Item,
    prompt: Prompt,
    completion: str,
    *,
    num_tokens: int,
    finished: bool,
    cut: bool = False,
    made_in: str = "",
) -> Answer:
    """The line of a completion, whose answer is taken out by the prompt's rules."""
    answer, rule = extract_answer(completion, prompt, item.choices)
    return Answer(item.id, completion, answer, num_tokens, finished, cut, rule, made_in)


class JobFolder:
    """The files of one job, and the progress lines that the parent reads."""

    def __init__(self, job: InferenceJob) -> None:
        """Go on with what the same run left; another run's answers are set aside.

        They may have cost GPU hours, and left here a failure would have them scored.

        Raises:
            PipelineError: If the questions are not those that the job was made for, or what lies
                there is of an older version.
        """
        if file_digest(job.questions) != job.run.questions_sha256:
            msg = f"{job.questions} has changed since evaluation was planned: run evaluate again"
            raise PipelineError(msg)
        self.job = job
        self.questions = read_questions(job.questions)
        self.answered: dict[str, Answer] = {}
        self._run, self._run_path = job.run, job.output / "run.json"
        path = job.output / "answers.jsonl"
        before = EvaluationRun.read(self._run_path) if self._run_path.exists() else None
        if before is not None and before.gives_answers_of(job.run):
            self._run = job.run.with_notes_of(before)
            known = {question.id for question in self.questions}
            lines = read_answers(path)
            self.answered = {answer.id: answer for answer in lines if answer.id in known}
        elif path.exists():
            aside = name_aside(job.output)
            job.output.rename(aside)
            say(f"{job.run.name}: what was there is kept in {aside}")
        self._log = AppendLog(path)
        self._told_s = time.monotonic()

    @property
    def is_done(self) -> bool:
        """Whether every question has a line."""
        return len(self.answered) == len(self.questions)

    @property
    def progress(self) -> str:
        """E.g. `grpo-step-100 on demo answer: 96/150 answered`."""
        return f"{self.job.run.name}: {len(self.answered)}/{len(self.questions)} answered"

    def start(self, revision: str | None = None) -> None:
        """Write run.json; the answers of an earlier start stay.

        Args:
            revision: Commit of a model from the hub, whose name alone may mean another one
                tomorrow; answers of another commit go.
        """
        if self._run.model.revision != revision:
            self.answered = {}
            self._log.path.unlink(missing_ok=True)
        model = self._run.model.model_copy(update={"revision": revision})
        self._run = self._run.model_copy(update={"model": model})
        for name in ("verdicts.jsonl", "score.json"):
            (self.job.output / name).unlink(missing_ok=True)
        self._run.write(self._run_path)

    def append(self, answer: Answer) -> None:
        """Add one answer, and tell now and then how many there are."""
        self._log.append(asdict(answer))
        self.answered[answer.id] = answer
        if time.monotonic() - self._told_s >= PROGRESS_EVERY_S:
            self._told_s = time.monotonic()
            say(self.progress)

    def finish(self, seconds: float) -> None:
        """Note the time that answering took, over all starts."""
        total = round(self._run.seconds + seconds, 2)
        self._run = self._run.model_copy(update={"seconds": total})
        self._run.write(self._run_path)
        say(f"{self.progress}, in {seconds:.1f} s")


def say(line: str) -> None:
    """Tell the parent, who reads the output."""
    print(line, flush=True)  # noqa: T201  what the parent reads
