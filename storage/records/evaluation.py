"""What an evaluation leaves: how a model was asked, what it said, and how that was judged.

```
evaluation/<model>/<benchmark>/<prompt>[+<control>]/
  run.json        EvaluationRun, before the first answer and again when all are there
  answers.jsonl   Answer, a line as each comes
  verdicts.jsonl  Verdict, in the benchmark's order
  score.json      Score
  controls.json   ControlReport, beside the proper run of a model that has controls
```

A model, a benchmark and a control are looked up by their whole key or digest, never by a part of a
name.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, cast

from pydantic import Field, TypeAdapter, ValidationError, model_serializer, model_validator

from storage.config import Config
from storage.jsonl import as_array, read_appended, read_jsonl, write_jsonl
from storage.records.document import Document
from storage.records.model import ModelRef
from storage.records.prompt import Prompt
from storage.records.question import VALIDATION

Role = Literal["start", "checkpoint", "other", "imported"]
ScorerName = Literal["official", "strict"]


class RunKey(Config):
    """Which evaluation: everything that tells two of one experiment apart."""

    model: str
    """Key of the model, e.g. `grpo-step-100`; a folder's name."""
    benchmark: str
    """Key of the benchmark, its name and eight characters of its digest; a folder's name."""
    prompt: str
    control: str | None = None
    """`silence`, `shuffled-audio` or `cyclic-shift-1` to `-3`; None: the question as it is."""

    @property
    def folder(self) -> Path:
        """Where it lies, from the experiment's `evaluation` folder."""
        control = f"+{self.control}" if self.control else ""
        return Path(self.model, self.benchmark, f"{self.prompt}{control}")

    @property
    def proper(self) -> "RunKey":
        """The same without its control."""
        return self.model_copy(update={"control": None})


class Decoding(Config):
    """How completions were decoded: greedily."""

    max_new_tokens: int
    batch_size: int | None
    """Questions in one batch, None: as memory allowed; decides nothing where the parity check
    holds."""
    decode: Literal["eager", "captured"] = "eager"
    """Whether a step's launches were recorded and played back; decides nothing, as above."""
    precision: Literal["fp32", "bf16", "theirs"]
    """Of the weights; `theirs`: of an endpoint."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """What an endpoint was told besides."""


class EvaluationRun(Document):
    """Everything that decides a folder's answers."""

    what: ClassVar[str] = "an evaluation's record"

    key: RunKey
    model: ModelRef
    """Whose answers; known by its digest."""
    role: Role
    """`start`: a training of this experiment began from it; `checkpoint`: a training's; `other`:
    named in `evaluate.models`; `imported`: another tool's predictions."""
    method: Literal["grpo", "sft"] | None = None
    """How a checkpoint was trained; None for other models, as `variant`."""
    variant: Literal["full", "lora"] | None = None
    benchmark_name: str
    """Name without digest, e.g. `mmau-test-mini-original`."""
    benchmark_digest: str
    """Changes when a question or a clip does; answers under another one count for nothing."""
    questions_sha256: str
    """Of questions.json."""
    num_questions: int
    silence: bool = False
    """Whether zeros stood for the clips, to try things."""
    prompt: Prompt | None
    """None for another tool's predictions, as `decoding`: not known."""
    decoding: Decoding | None
    versions: dict[str, str]
    """Of Python and of the packages that decide answers."""
    seconds: float = 0.0
    """That answering took, over all runs."""

    @property
    def name(self) -> str:
        """As progress lines have it, e.g. `grpo-step-100 on demo answer+silence`."""
        return f"{self.key.model} on {self.benchmark_name} {self.key.folder.name}"

    @property
    def is_test(self) -> bool:
        """False for the held-out training examples, on which checkpoints are chosen."""
        return self.benchmark_name != VALIDATION

    def gives_answers_of(self, other: "EvaluationRun") -> bool:
        """Whether both runs give the same answers: names, roles and batches decide nothing."""
        names = ("model", "role", "method", "variant", "benchmark_name", "seconds")
        labels = dict.fromkeys(names, True) | {"decoding": {"batch_size", "decode"}}
        mine, others = ((run.model.digest, run.model_dump(exclude=labels)) for run in (self, other))
        return mine == others

    def with_notes_of(self, before: "EvaluationRun") -> "EvaluationRun":
        """This run with what an earlier start noted: commit of a hub's model, seconds."""
        model = self.model.model_copy(update={"revision": before.model.revision})
        return self.model_copy(update={"model": model, "seconds": before.seconds})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said to one question: a line of answers.jsonl."""

    id: str
    completion: str
    """The text as it came; empty where the clip could not be read."""
    answer: str | None
    """The answer taken out of it; None if there was none."""
    num_tokens: int = 0
    finished: bool = True
    """Whether the model ended it; False: it was cut off."""
    cut: bool = False
    """Whether its clip goes on beyond what the model hears, e.g. 30 s."""
    rule: str = ""
    """The prompt's rule that took the answer out, e.g. `first-answer`; empty: none did."""
    made_in: str = ""
    """Evaluation that it was taken over from, e.g. `paper/evaluation/grpo-step-100/...`; empty: it
    was asked here."""
    error: str | None = None
    """Why there is no completion, e.g. a clip that cannot be read."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one answer fares under each scorer: a line of verdicts.jsonl."""

    id: str
    answer: str | None
    """The extracted answer; None if the completion held none, or there was no prediction."""
    choice_index: int | None
    """Position of the one choice that the answer is, among the choices as asked; None: not one."""
    official: bool | None
    """None where the benchmark withholds its answers, as `strict`."""
    strict: bool | None
    reason: str
    """Why, in a few words, e.g. `right: letter`, `wrong: not a choice`."""
    rule: str = ""
    """Where the strict rule read, e.g. `tag`, `boxed`; empty: the whole text."""

    @property
    def parsed(self) -> bool:
        """Whether the answer is one of the choices."""
        return self.choice_index is not None

    def of(self, scorer: str) -> bool | None:
        """The verdict of one scorer."""
        return self.official if scorer == "official" else self.strict


@dataclass(frozen=True, slots=True)
class Tally:
    """Correct answers out of questions asked, unanswered ones included."""

    num_correct: int
    num_questions: int

    @property
    def accuracy(self) -> float:
        """Fraction in 0..1; a tally of no questions has none, so it raises."""
        return self.num_correct / self.num_questions


class Counts(Config):
    """One scorer's counts; in the file the groups stand beside `overall`."""

    overall: Tally
    groups: dict[str, dict[str, Tally]]
    """By `task`, `difficulty`, `category` or `sub-category`, then by label."""

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, found: Any) -> Any:  # noqa: ANN401  decoded JSON, checked next
        if not isinstance(found, dict) or "groups" in found:
            return cast("Any", found)
        groups = cast("dict[str, Any]", found).copy()
        return {"overall": groups.pop("overall", None), "groups": groups}

    @model_serializer
    def _spread(self) -> dict[str, Any]:
        return {"overall": self.overall, **self.groups}


class Hashes(Config):
    """sha256 of the files that a score was counted from."""

    questions: str
    answers: str


class Coverage(Config):
    """How far a file of another tool's predictions goes."""

    num_answered: int
    """Questions that have a prediction."""
    num_questions: int
    missing: tuple[str, ...]
    """Ids without a prediction; they count as wrong."""


class Source(Config):
    """Where another tool's predictions come from."""

    file: str
    key: str
    """Key that held the texts."""


class Score(Document):
    """Counts of a folder's verdicts: score.json, whose keys others read."""

    what: ClassVar[str] = "a score"

    benchmark: str
    """Name without digest."""
    scorers: dict[str, Counts]
    """Empty where the benchmark withholds its answers."""
    num_questions: int
    num_unparsed: int
    """Answers that are not one choice."""
    hashes: Hashes
    coverage: Coverage | None = None
    """Of another tool's predictions, as `source`; None for our own, which are whole."""
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """Right answers to the same questions with the clip and under a control."""

    num_heard: int
    num_control: int
    num_questions: int


class Contribution(Config):
    """What the audio is worth under one scorer, against one control."""

    overall: Heard
    groups: dict[str, dict[str, Heard]]


class OrderConsistency(Config):
    """How often the chosen text is the same in every order of the choices."""

    num_consistent: int
    """Questions with one text in all orders; what is no choice is consistent with nothing."""
    num_right_in_all: int
    num_questions: int
    num_orders: int
    """Orders asked, the proper one included."""


class ControlReport(Document):
    """What a model's controls say, beside its proper run."""

    what: ClassVar[str] = "a report of controls"

    key: RunKey
    """The proper run."""
    contribution: dict[str, dict[str, Contribution]]
    """By scorer and control; a cyclic shift changes no audio and is left out."""
    needs_audio: dict[str, Tally]
    """By scorer: right answers to the questions that the start model gets wrong under silence."""
    order: OrderConsistency | None
    """None where no shift was asked."""


class StoredRun(NamedTuple):
    """A folder of answers and its record."""

    folder: Path
    run: EvaluationRun

    @property
    def is_scored(self) -> bool:
        """Whether all questions are answered and judged."""
        return (self.folder / "score.json").exists()


def list_runs(evaluation: Path, *, within: Path | None = None) -> list[StoredRun]:
    """The runs of an experiment, by folder; what lies elsewhere than its key says is left out.

    With `within`, the folder of one model on one benchmark, only theirs.
    """
    paths = within.glob("*/run.json") if within else evaluation.glob("*/*/*/run.json")
    stored = [StoredRun(path.parent, EvaluationRun.read(path)) for path in sorted(paths)]
    return [found for found in stored if evaluation / found.run.key.folder == found.folder]


# 10,000 lines in 16 ms, a third of the time that objects made one by one take.
ANSWERS, VERDICTS = TypeAdapter(list[Answer]), TypeAdapter(list[Verdict])


def read_answers(path: Path) -> list[Answer]:
    """Read answers.jsonl; the line that is just being written is passed over."""
    try:
        return ANSWERS.validate_json(as_array(path.read_bytes()))
    except (ValidationError, FileNotFoundError):  # a torn line
        return [Answer(**line) for line in read_appended(path)]


def write_verdicts(path: Path, verdicts: Iterable[Verdict]) -> None:
    """One line a verdict, in the order given."""
    write_jsonl(path, map(asdict, verdicts))


def read_verdicts(path: Path) -> list[Verdict]:
    """Read what `write_verdicts` wrote."""
    try:
        return VERDICTS.validate_json(as_array(path.read_bytes()))
    except (ValidationError, FileNotFoundError):
        return [Verdict(**line) for line in read_jsonl(path)]
