"""The parts of a report, typed: what was measured, trained, fetched and published.

Marks are one character a question, in the benchmark's order: `1` right, `0` wrong, `-` not judged.
Fractions stay 0..1 until they are shown.
"""

from collections import Counter
from typing import Annotated, Literal, NamedTuple, cast

from pydantic import Field, JsonValue

from reports.numbers.statistics import FIRST_TASKS
from storage.config import Config
from storage.records.evaluation import EvaluationRun, RunKey, Tally
from storage.records.example import DataAccount
from storage.records.model import ModelRef, TrainingRef
from storage.records.question import Question
from storage.records.training import Sampled

Percent = Annotated[float, Field(ge=0, le=100)]


class Provenance(Config):
    """Commit, versions and command: what stands beside every number."""

    command: str = ""
    workspace: str = ""
    commit: str = ""
    """Of this program; empty outside a checkout."""
    uncommitted_changes: bool = False
    python: str = ""
    versions: dict[str, str] = Field(default_factory=dict)


class BenchmarkSheet(Config):
    """One benchmark version with its questions."""

    key: str
    """As evaluations name it in their keys."""
    name: str
    """As the profile and the pages name it; unique in a report."""
    is_test: bool
    """False for the held-out examples, on which a step is chosen."""
    questions_sha256: str
    questions: tuple[Question, ...]
    """In the file's order, which every mark follows."""
    about: str = ""
    """Title and note of a known one."""
    rule: str | None = None
    """Its authors' own rule, where it is not the official scorer's."""
    subsets: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    """Positions of the questions of a second number, e.g. `without listed errata`."""

    @property
    def is_withheld(self) -> bool:
        """Whether it gives no answers: predictions can be sent, not scored."""
        return all(not question.answer for question in self.questions)


class Count(Config):
    """How many of one kind."""

    name: str
    """Of the kind; empty: not known."""
    count: int


class Curve(Config):
    """Metrics of a training as columns of one length."""

    step: tuple[int, ...] = ()
    """Optimiser steps, rising."""
    metrics: dict[str, tuple[float | None, ...]] = Field(default_factory=dict)
    """By name, e.g. `reward`; None where a step has none, or no finite one."""


class TrainingSheet(Config):
    """One training of the profile."""

    name: str
    method: Literal["grpo", "sft"]
    variant: Literal["full", "lora"]
    prompt: str
    """Of training and of its evaluation."""
    seed: int
    start_model: str
    evaluated: bool
    """Whether its checkpoints are; False for a warm start that only the next one begins from."""
    planned: tuple[int, ...] = ()
    """Steps whose checkpoints its settings save; empty: not known."""
    start: ModelRef | None = None
    """What it started from, as it recorded; None: it has not begun."""
    checkpoint_steps: tuple[int, ...] = ()
    curve: Curve = Curve()
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """Those that decided what it learned, as it recorded."""
    device_hours: float | None = None
    """Time of its steps times its devices; None: not logged."""
    warnings: tuple[str, ...] = ()
    """Signs that it learned nothing, with their usual causes."""
    samples: tuple[Sampled, ...] = ()
    """Completions of one prompt, one a step."""
    dropped: tuple[Count, ...] = ()
    """Examples that could not be used, by reason."""

    @property
    def progress(self) -> str:
        """`as of step 120 of 500`; empty before the first step and after the last."""
        at, last = max(self.curve.step, default=0), max(self.planned, default=0)
        return f"as of step {at} of {last}" if 0 < at < last else ""


class Asked(NamedTuple):
    """A model asked with one prompt."""

    model: str
    prompt: str


class EvaluationSheet(Config):
    """One model's answers to one benchmark, asked in one way."""

    run: EvaluationRun
    """How it was asked; `role` is the model's in this report."""
    marks: dict[str, str]
    """By scorer; empty where the benchmark withholds its answers."""
    picks: str
    """Position of each answer among the choices as the benchmark has them, in digits and letters;
    `-`: no answer, `?`: an answer that is not one of them."""
    parsed: str
    """`1` where the answer is one of the choices."""
    finished: str
    """`0` where the completion was cut off."""
    answers: tuple[str | None, ...]
    reasons: tuple[str, ...]
    completions: tuple[str | None, ...]
    """Texts as they came; None where there is none."""
    num_tokens: tuple[int | None, ...]
    cut: tuple[str, ...] = ()
    """Ids of questions whose clip goes on beyond what the model hears."""

    @property
    def key(self) -> RunKey:
        """Everything that tells it from the report's others."""
        return self.run.key

    @property
    def model(self) -> str:
        """Key of the model."""
        return self.run.key.model

    @property
    def prompt(self) -> str:
        """Name of the prompt."""
        return self.run.key.prompt

    @property
    def asked(self) -> Asked:
        """The model and how it was asked."""
        return Asked(self.model, self.prompt)

    @property
    def submission_file(self) -> str:
        """File of predictions to submit, from the experiment's folder."""
        return f"evaluation/{self.key.folder.as_posix()}/submission.json"

    @property
    def made(self) -> TrainingRef | None:
        """Training, seed and step whose checkpoint it is; None for every other model."""
        return self.run.model.training if self.run.role == "checkpoint" else None

    @property
    def training(self) -> str | None:
        """Name of that training."""
        return self.made and self.made.name

    @property
    def step(self) -> int | None:
        """Step of that checkpoint."""
        return self.made and self.made.step


class Unfinished(Config):
    """An evaluation that has not answered every question yet."""

    run: EvaluationRun
    answered: Tally


class Apart(Config):
    """An evaluation that lies in the folder and is not of this profile; it counts for nothing."""

    key: RunKey
    reason: str
    """Why not, e.g. `step 300 of grpo is not saved by its settings`."""
    num_answered: int


class PublishedRow(Config):
    """One published result, accuracies in percent as printed."""

    benchmark: str
    version: str = ""
    model: str
    method: str = ""
    variant: str = ""
    """`full` or `lora`; empty where it does not apply or is not known."""
    prompt: str = ""
    """Our name of its prompt: `answer`, `think`, `plain`; empty where it is not one of them."""
    weights: str = ""
    """Name on the hub, where they are released and this row is what to hold them to."""
    sound: Percent | None = None
    """None: not printed. So are the next three."""
    music: Percent | None = None
    speech: Percent | None = None
    average: Percent | None = None
    tasks: dict[str, Percent] = Field(default_factory=dict)
    """Percent of tasks of other names, e.g. `mix-sound-music`."""
    num_questions: int | None = None
    contradicted: float | None = None
    """What its tasks give, in percent, where the printed average says otherwise."""
    source: str
    date: str = ""
    note: str = ""

    def percent(self, name: str) -> float | None:
        """Of a task or `average`; None for any other name."""
        is_field = name in (*FIRST_TASKS, "average")
        return getattr(self, name) if is_field else self.tasks.get(name)


class LostClip(Config):
    """A clip that cannot be used."""

    clip: str
    """Its id, e.g. `-HG3Omg_89c_000030`."""
    state: str
    reason: str
    message: str
    """Of what it was lost to; empty: none was kept."""
    is_kept: bool = False
    """Whether its wav is there all the same, as a silent one's is."""


class UsableClip(NamedTuple):
    """A clip that can be used; of 38,000 the names of fields would be half the file."""

    clip: str
    """Its id."""
    source: str
    """Where it came from; empty: not known."""
    note: str
    """`silent`, `short`, `cancelled`, or several of them; empty: as it should be."""
    is_kept: bool
    """Whether its wav is there."""


class FetchSheet(Config):
    """What became of the training audio; every count of clips is of these two lists."""

    folder: str
    """Name of the clips' folder in the workspace."""
    usable: tuple[UsableClip, ...]
    losses_by_day: tuple[Count, ...]
    """By the day (UTC) on which they were last found unusable."""
    lost: tuple[LostClip, ...] = ()
    """Every one, with its message."""
    facts: tuple[tuple[str, str], ...]
    """What else the account says, as name and text."""

    @property
    def num_requested(self) -> int:
        """Clips asked for."""
        return len(self.usable) + len(self.lost)

    @property
    def by_reason(self) -> list[tuple[str, str, int]]:
        """State, reason and number of the clips that cannot be used, the most first."""
        counted = Counter((clip.state, clip.reason) for clip in self.lost)
        return [(*key, count) for key, count in counted.most_common()]

    @property
    def by_source(self) -> list[tuple[str, int]]:
        """Usable clips by where they came from, the most first."""
        return Counter(clip.source for clip in self.usable).most_common()

    @property
    def by_note(self) -> list[tuple[str, int]]:
        """Usable clips by what is noted of them; a clip may have several notes."""
        notes = (note for clip in self.usable for note in clip.note.split(", ") if note)
        return Counter(notes).most_common()


class KeptRows(Config):
    """Rows of one kind before and after."""

    name: str
    kept: int
    dropped: int


class RowsSheet(Config):
    """From annotation rows to training examples."""

    kept: int
    dropped: int
    by_reason: tuple[Count, ...]
    question_types: tuple[KeptRows, ...]
    """By AVQA's types; a dropped row without one is not counted."""
    question_relations: tuple[KeptRows, ...]
    """By what they ask about: sound, view, both."""
    account: DataAccount | None = None
    """By source; None where an earlier version converted."""


def flat(value: object, prefix: str = "") -> list[tuple[str, str]]:
    """A nested JSON value as lines of dotted key and text."""
    if isinstance(value, dict):
        members = cast("dict[str, object]", value)
        return [
            line
            for key, member in members.items()
            for line in flat(member, f"{prefix}.{key}" if prefix else key)
        ]
    if isinstance(value, list):
        items = cast("list[object]", value)
        return [(prefix, ", ".join(str(item) for item in items))]
    if isinstance(value, bool):
        return [(prefix, "yes" if value else "no")]
    return [(prefix, "none" if value is None else str(value))]
