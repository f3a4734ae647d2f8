"""What the loop asks of a method, a step's batch and the loss of its parts; and its metrics."""

import resource
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import ProcessorMixin

from model.config import TrainConfig
from model.network.features import Batch
from model.network.policy import Policy
from model.train.flops import operations, peak_operations_per_s
from model.train.order import Collator, Drawn, Draws
from model.train.step_log import Means, StepLog, Stopwatch
from storage.records.sizes import ModelSizes
from storage.records.training import StepMetrics, metrics_of

# Sums of a step that are shown as a speed, not as a mean.
COUNTS = ("prompt_tokens", "predicted_tokens", "encoder_positions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What every step of a run works with."""

    config: TrainConfig
    """Settings."""
    accelerator: Accelerator
    """This process's place among the others."""
    policy: Policy
    """The network that learns, as accelerate has wrapped it: gradients are synchronised."""
    processor: ProcessorMixin
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

    @property
    def num_passes(self) -> int:
        """Micro-batches of a step on this device."""
        return self.config.num_passes(self.accelerator.num_processes)

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


def step_metrics(
    session: Session,
    sizes: ModelSizes,
    *,
    step: int,
    means: Means,
    grad_norm: float,
    learning_rate: float,
) -> StepMetrics:
    """What metrics.jsonl says of a step; all processes take part.

    Args:
        session: Of the run.
        sizes: Of the model, to count its work.
        step: Steps done.
        means: What this device has counted, the loss as a sum.
        grad_norm: Before clipping.
        learning_rate: Of the step.
    """
    sums = session.add_up(means.as_tensor().to(session.accelerator.device)).cpu()
    totals = dict(zip(means.sums, sums[:, 0].tolist(), strict=True))
    seconds = session.watch.read()
    is_sampled = session.config.method == "grpo"
    age = (step - 1) % session.config.grpo.steps_per_rollout  # steps that learned from it before
    forwards = is_sampled and not age
    forwards += forwards and session.config.grpo.beta > 0
    return metrics_of(
        {
            "step": step,
            **{name: mean for name, mean in means.means(sums).items() if name not in COUNTS},
            "loss": totals["loss"],
            "rollout_step": step - age if is_sampled else None,
            "grad_norm": grad_norm,
            "learning_rate": learning_rate,
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
            "tokens_per_second": totals.get("predicted_tokens", 0.0) / seconds["total"],
            "mfu": _utilisation(session, sizes, totals, seconds["total"], int(forwards)),
            "peak_memory_bytes": _peak_memory_bytes(session.accelerator.device),
        }
    )


def _utilisation(
    session: Session, sizes: ModelSizes, totals: dict[str, float], seconds: float, forwards: int
) -> float | None:
    """Share of the GPUs' peak speed (MFU), where that is known."""
    device, config = session.accelerator.device, session.config
    if device.type != "cuda":
        return None
    peak = peak_operations_per_s(torch.cuda.get_device_name(device))
    if peak is None:
        return None
    prompt, predicted, positions = (totals.get(name, 0.0) for name in COUNTS)
    needed = operations(
        sizes,
        text_tokens=prompt + predicted,
        predicted_tokens=predicted,
        encoder_positions=positions,
        num_forwards=forwards,
        freeze=config.freeze,
        has_adapter=config.lora is not None,
    )
    return needed / seconds / (peak * session.accelerator.num_processes)


def _peak_memory_bytes(device: torch.device) -> int:
    """Most memory used so far: of the GPU by tensors, of a CPU process by everything."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts KiB
