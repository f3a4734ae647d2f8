"""The metrics of a finished step: means over all devices, speed, memory."""

import resource
import sys

import torch

from model.train.flops import operations, peak_operations_per_s
from model.train.sizes import ModelSizes
from model.train.step import Session
from model.train.step_log import Means
from storage.records.training import StepMetrics, metrics_of

# Sums of a step that are shown as a speed, not as a mean.
COUNTS = ("prompt_tokens", "predicted_tokens", "encoder_positions")


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
    totals = dict(zip(means.names(), sums[:, 0].tolist(), strict=True))
    seconds = session.watch.read()
    return metrics_of(
        {
            "step": step,
            **{name: mean for name, mean in means.means(sums).items() if name not in COUNTS},
            "loss": totals["loss"],
            "grad_norm": grad_norm,
            "learning_rate": learning_rate,
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
            "tokens_per_second": totals.get("predicted_tokens", 0.0) / seconds["total"],
            "mfu": _utilisation(session, sizes, totals, seconds["total"]),
            "peak_memory_bytes": _peak_memory_bytes(session.accelerator.device),
        }
    )


def _utilisation(
    session: Session, sizes: ModelSizes, totals: dict[str, float], seconds: float
) -> float | None:
    """Share of the GPUs' peak speed (MFU), where that is known."""
    device, config = session.accelerator.device, session.config
    if device.type != "cuda":
        return None
    peak = peak_operations_per_s(torch.cuda.get_device_name(device))
    if peak is None:
        return None
    has_rollout = config.method == "grpo"
    prompt, predicted, positions = (totals.get(name, 0.0) for name in COUNTS)
    needed = operations(
        sizes,
        text_tokens=prompt + predicted,
        predicted_tokens=predicted,
        encoder_positions=positions,
        num_forwards=has_rollout + (has_rollout and config.grpo.beta > 0),
    )
    return needed / seconds / (peak * session.accelerator.num_processes)


def _peak_memory_bytes(device: torch.device) -> int:
    """Most memory used so far: of the GPU by tensors, of a CPU process by everything."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts KiB
