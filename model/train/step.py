"""What the loop asks of a method: what a step learns from, and the loss of each part of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from accelerate import Accelerator
from torch import Tensor
from transformers import Qwen2AudioProcessor

from model.config import TrainConfig
from model.network.features import Batch
from model.network.policy import Policy
from model.train.order import Collator, Drawn, Draws
from model.train.step_log import Means, StepLog, Stopwatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What every step of a run works with."""

    config: TrainConfig
    """Settings."""
    accelerator: Accelerator
    """This process's place among the others."""
    policy: Policy
    """The network that learns, as accelerate has wrapped it: gradients are synchronised."""
    processor: Qwen2AudioProcessor
    """Of the model."""
    stop_ids: Tensor
    """Token ids that end a completion."""
    draws: Draws
    """The order of the whole run."""
    collator: Collator
    """Makes a micro-batch of draws."""
    batches: Iterator[Drawn]
    """This process's micro-batches, from the first step to do."""
    log: StepLog
    """Files and progress lines."""
    watch: Stopwatch
    """Seconds by phase."""

    @property
    def unwrapped(self) -> Policy:
        """The policy without DDP: for what needs no gradient."""
        return self.accelerator.unwrap_model(self.policy)

    def draw(self) -> Drawn:
        """The next micro-batch, on the device."""
        with self.watch.phase("features"):
            return next(self.batches).to(self.accelerator.device)

    def add_up(self, number: Tensor) -> Tensor:
        """The sum of a tensor over all devices."""
        return self.accelerator.reduce(number, reduction="sum")  # pyright: ignore[reportReturnType]  a tensor for a tensor


class MicroBatch(Protocol):
    """A part of a step that fits into one forward and backward pass."""

    @property
    def ids(self) -> list[str]:
        """Ids of its examples."""
        ...


Part = TypeVar("Part", bound=MicroBatch)


@dataclass(frozen=True, slots=True)
class StepBatch(Generic[Part]):
    """What one optimiser step learns from, on this device."""

    micro_batches: Sequence[Part]
    """Complete: their losses add up, over all devices, to that of one large batch."""
    means: Means
    """What was counted on the way."""


class PartLoss(NamedTuple):
    """One micro-batch's part of a step's loss."""

    loss: Tensor
    """A scalar; the step's loss is the sum over micro-batches and devices."""
    means: Means
    """What was counted on the way."""


class Method(Protocol[Part]):
    """How a network learns."""

    def prepare(self, step: int) -> StepBatch[Part]:
        """Make what a step, counted from 1, learns from."""
        ...

    def loss(self, micro_batch: Part) -> PartLoss:
        """The loss of a part, with gradient."""
        ...


def count_tokens(means: Means, prompt: Batch, completion_mask: Tensor) -> None:
    """Count the tokens of a micro-batch, for its speed."""
    means.add_sum("prompt_tokens", float(prompt["prompt_mask"].sum()), 1)
    means.add_sum("predicted_tokens", float(completion_mask.sum()), 1)
    means.add_sum("encoder_positions", float(prompt["num_frames"].sum()) / 2, 1)
