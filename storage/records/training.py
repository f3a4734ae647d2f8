"""What a training leaves: what it is, its steps, its completions, its checkpoints.

- run.json, `TrainingRecord`: written before the training process starts, and all it is told.
- metrics.jsonl, `StepMetrics`: a line an optimiser step, flat, for whatever reads JSON lines.
- completions.jsonl, `Sampled`: some completions, every so many steps.
- checkpoint-100/checkpoint.json, `CheckpointRecord`: what a whole checkpoint holds.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, variance
from typing import Any, ClassVar, Literal

from pydantic import JsonValue, TypeAdapter

from storage.jsonl import Record, append_line, read_appended, read_json, write_jsonl
from storage.records.document import Document
from storage.records.model import ModelRef

RUN, METRICS, COMPLETIONS = "run.json", "metrics.jsonl", "completions.jsonl"
CHECKPOINT, ADAPTER = "checkpoint.json", "adapter_config.json"
REWARD, SHARE = "_reward", "_share"  # ends of the names in metrics.jsonl
# What is told of a step, and how it is called.
SHOWN = {
    "loss": "loss",
    "reward": "reward",
    "accuracy_reward": "accuracy",
    "format_reward": "format",
    "validation_accuracy": "validation",
    "kl": "kl",
    "learning_rate": "lr",
}
WATCHED = 50  # steps over which it is looked whether anything is learned
GROUPS = {"rewards", "shares", "seconds"}


class TrainingRecord(Document):
    """One training: what it learns from, how, and what may differ when it goes on."""

    what: ClassVar[str] = "a training's record"

    name: str
    """Row and folder name, e.g. `grpo`; unique in its experiment."""
    method: Literal["grpo", "sft"]
    variant: Literal["full", "lora"]
    """Whether all weights learn, or low-rank adapters."""
    prompt: str
    """Name of it, e.g. `answer`."""
    seed: int
    """Of data order, sampling and dropout."""
    start: ModelRef
    is_start_rounded: bool = False
    """Whether its training went on with fp32 masters, of which these weights, the evaluated ones,
    are rounded to bf16."""
    parent: ModelRef | None = None
    """The checkpoint of another training that it continues; None: it starts by itself."""
    examples: Path
    """The lines it learns from, train.jsonl."""
    examples_sha256: str
    """Of these lines, whatever folder their clips lie in."""
    num_examples: int
    """Lines; those that cannot be used are in dropped.jsonl."""
    num_devices: int
    settings: dict[str, JsonValue]
    """The settings that decide what is learned, those of the method not used left out."""
    idle: dict[str, JsonValue]
    """The other settings: they may differ when the training goes on."""
    versions: dict[str, str]
    """Of the packages that compute, e.g. `torch: 2.13.0`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMetrics:
    """One optimiser step, means over all its devices; None where nothing of the kind was seen."""

    step: int
    """From 1."""
    loss: float | None
    """Near 0 in GRPO whatever was learned, see model/train/grpo.py."""
    grad_norm: float | None
    """Before clipping."""
    learning_rate: float
    reward: float | None = None
    """Mean of the weighted sums of rewards."""
    reward_std: float | None = None
    """Mean over prompts of the standard deviation within the group."""
    rewards: Mapping[str, float | None]
    """Mean of each reward before its weight, e.g. `accuracy: 0.55`."""
    shares: Mapping[str, float | None]
    """Fractions in 0..1, e.g. `cut_off: 0.02` of the completions, `zero_variance` of the groups."""
    rollout_step: int | None = None
    """The first step that learned from the same completions, where they are sampled."""
    validation_accuracy: float | None = None
    """Fraction of the held-out questions answered right, where a checkpoint follows."""
    kl: float | None = None
    """Estimate of the KL divergence from the start model, nats a token."""
    entropy: float | None = None
    """Nats a token."""
    completion_length: float | None = None
    """Tokens."""
    seconds: Mapping[str, float]
    """By phase, and `total`; of the main process."""
    tokens_per_second: float | None = None
    """Completion tokens learned from."""
    mfu: float | None = None
    """Share of the GPUs' peak speed, where that is known."""
    peak_memory_bytes: int | None = None
    """Most memory used so far by the main process."""

    def numbers(self) -> dict[str, float]:
        """Every number by its name in metrics.jsonl, without the times; None is left out."""
        flat = {name: getattr(self, name) for name in self.__slots__ if name not in GROUPS}
        flat |= {name + REWARD: value for name, value in self.rewards.items()}
        flat |= {name + SHARE: value for name, value in self.shares.items()}
        return {name: value for name, value in flat.items() if value is not None}

    def shown(self) -> str:
        """What is told of a step on the way, e.g. `loss 0.0123 reward 1.42 accuracy 0.55`."""
        found = self.numbers()
        told = {short: found[name] for name, short in SHOWN.items() if name in found}
        return " ".join(f"{short} {value:.4g}" for short, value in told.items())

    def trackable(self) -> dict[str, float]:
        """Every number by its name in TensorBoard and W&B, the times as `seconds/rollout`."""
        return self.numbers() | {f"seconds/{name}": value for name, value in self.seconds.items()}


@dataclass(frozen=True, slots=True)
class Sampled:
    """A completion that was sampled for training, and what it earned."""

    step: int
    """Optimiser step that learned from it, from 1."""
    id: str
    question: str
    choices: tuple[str, ...]
    """In the order shown."""
    answer: str
    completion: str
    """Without special tokens."""
    reward: float
    """Weighted sum."""
    rewards: Mapping[str, float]
    """Each before its weight."""
    finished: bool
    """False where the length limit cut it off."""


class CheckpointRecord(Document):
    """What a whole checkpoint holds; a folder whose files do not match it is torn."""

    what: ClassVar[str] = "a checkpoint's record"

    step: int
    can_resume: bool
    """Whether the optimiser's state is there; if not, it can only be evaluated."""
    settings: dict[str, JsonValue]
    """The settings that decided it, flat, e.g. `grpo.beta: 0.04`; a resumed run has the same."""
    made_with: dict[str, JsonValue]
    """What may differ from one checkpoint to the next: `num_devices`, and the idle settings."""
    files: dict[str, int]
    """Size in bytes by path within the folder."""
    digests: dict[str, str]
    """sha256 of those that are loaded."""


def append_metrics(folder: Path, metrics: StepMetrics) -> None:
    """Append a step to metrics.jsonl; a number that is no number becomes null."""
    numbers = metrics.numbers().items()
    line = {name: value if math.isfinite(value) else None for name, value in numbers}
    append_line(folder / METRICS, {**line, "seconds": dict(metrics.seconds)})


def read_metrics(folder: Path) -> list[StepMetrics]:
    """A training's steps in order, none where it has not begun; of one logged twice, the last."""
    lines = [line for line in read_appended(folder / METRICS) if "step" in line]
    by_step = {int(line["step"]): metrics_of(line) for line in lines}
    return [by_step[step] for step in sorted(by_step)]


def end_step(folder: Path, max_steps: int, patience: int | None) -> int | None:
    """The step with which a training ends; None where its validation is still to tell.

    So many validations in a row as `patience` without a better one end it before `max_steps`.
    """
    if patience is None:
        return max_steps
    steps = read_metrics(folder)
    end = max_steps if steps and steps[-1].step >= max_steps else None
    return stopping_step(steps, patience) or end


def stopping_step(steps: Iterable[StepMetrics], patience: int) -> int | None:
    """The first step with so many validations in a row that are no better than the best before."""
    best, num_waited = -math.inf, 0
    for metrics in steps:
        accuracy = metrics.validation_accuracy
        if accuracy is not None:
            num_waited = 0 if accuracy > best else num_waited + 1
            best = max(best, accuracy)
            if num_waited == patience:
                return metrics.step
    return None


def append_sampled(folder: Path, sampled: Sampled) -> None:
    """Append a completion to completions.jsonl."""
    append_line(folder / COMPLETIONS, asdict(sampled))


def read_sampled(folder: Path) -> list[Sampled]:
    """A training's logged completions, in the order of their steps."""
    return TypeAdapter(list[Sampled]).validate_python(read_appended(folder / COMPLETIONS))


def forget_after(folder: Path, step: int) -> None:
    """Drop the lines of steps that a resumed run will do again, and a torn last line."""
    for name in (METRICS, COMPLETIONS):
        lines = read_appended(folder / name)
        if lines:
            write_jsonl(folder / name, [line for line in lines if int(line["step"]) <= step])


def metrics_of(line: Record) -> StepMetrics:
    """The step that a flat line describes, as `StepMetrics.numbers` names its numbers."""
    known: dict[str, Any] = {name: line[name] for name in StepMetrics.__slots__ if name in line}
    rewards, shares = (
        {name.removesuffix(end): line[name] for name in line if name.endswith(end)}
        for end in (REWARD, SHARE)
    )
    return StepMetrics(rewards=rewards, shares=shares, **known)


def warnings_of(steps: Sequence[StepMetrics]) -> list[str]:
    """Signs that a training learns nothing, each with its usual cause; empty for a sound one."""
    last, before, first = steps[-WATCHED:], steps[-2 * WATCHED : -WATCHED], steps[:WATCHED]
    if len(last) < WATCHED or last[-1].reward is None:
        return []
    found: list[str] = []
    if all(step.shares.get("zero_variance") == 1 for step in last):
        found.append(
            f"in {WATCHED} steps the completions of every prompt scored alike, so nothing is "
            "learned: none has the format yet (start from a supervised training that teaches it), "
            "or all are right already (harder questions); completions.jsonl shows which"
        )
    rewards = [_known(step.reward for step in part) for part in (first, last)]
    if len(steps) >= 4 * WATCHED and all(len(part) > 1 for part in rewards):
        error = math.sqrt(sum(variance(part) / len(part) for part in rewards))
        if fmean(rewards[1]) < fmean(rewards[0]) + 2 * error:
            found.append(
                f"the reward of the last {WATCHED} steps is that of the first: a learning rate "
                "too small to move the weights (movement.json tells), or too large to learn"
            )
    kl, kl_before = (_known(step.kl for step in part) for part in (last, before))
    if kl and kl_before and fmean(kl) > max(1.0, 4 * fmean(kl_before)):
        found.append(
            f"KL runs away ({fmean(kl):.2g} nats a token after {fmean(kl_before):.2g}): the model "
            "leaves its start; lower the learning rate, or raise beta"
        )
    if fmean(step.shares.get("cut_off") or 0.0 for step in last) > 0.5:
        found.append(
            "more than half of the completions are cut off before they answer: raise "
            "grpo.max_completion_tokens, or start from a model that ends its answers"
        )
    return found


def _known(numbers: Iterable[float | None]) -> list[float]:
    return [number for number in numbers if number is not None]


def base_of(folder: str | Path) -> str | None:
    """The model that a folder's LoRA adapter is for; None if it holds no adapter.

    A base in its workspace is named by the way there, so that both can be moved; one elsewhere on
    this host by the training's record, which is not published.
    """
    adapter = Path(folder) / ADAPTER
    if not adapter.is_file():
        return None
    base = str(read_json(adapter)["base_model_name_or_path"])
    beside, record = (Path(folder) / base).resolve(), Path(folder).parent / RUN
    if beside.is_dir():
        return str(beside)
    return TrainingRecord.read(record).start.path if record.is_file() else base
