"""What one watches: metrics.jsonl, completions.jsonl, and progress lines for a parent process.

A progress line reads `step 120/600 loss 0.0123 reward 1.42 accuracy 0.55 kl 0.011 eta 0:01:03`.
"""

import math
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from storage.records.training import (
    Sampled,
    StepMetrics,
    append_metrics,
    append_sampled,
    forget_after,
)

# Short names of what a progress line shows, in this order.
SHOWN = {
    "loss": "loss",
    "reward": "reward",
    "accuracy_reward": "accuracy",
    "format_reward": "format",
    "kl": "kl",
    "learning_rate": "lr",
}


class Mean(NamedTuple):
    """A sum and what it is divided by when shown; adds up over micro-batches and devices."""

    total: float
    number: float


class Means:
    """Sums and counts of one optimiser step."""

    def __init__(self) -> None:
        """Start empty."""
        self._sums: dict[str, Mean] = {}

    def add(self, name: str, values: Tensor) -> None:
        """Add every element of a tensor."""
        self.add_sum(name, float(values.sum()), values.numel())

    def add_sum(self, name: str, total: float, count: float) -> None:
        """Add a sum and its count."""
        before = self._sums.get(name, Mean(0.0, 0.0))
        self._sums[name] = Mean(before.total + total, before.number + count)

    def names(self) -> list[str]:
        """Names in the order in which they came."""
        return list(self._sums)

    def as_tensor(self) -> Tensor:
        """Sums and counts, float64, (names, 2), to be added up over devices."""
        return torch.tensor([list(mean) for mean in self._sums.values()], dtype=torch.float64)

    def means(self, sums: Tensor) -> dict[str, float | None]:
        """Each name's mean from added-up sums; None where nothing was counted."""
        rows = sums.tolist()
        return {
            name: total / count if count else None
            for name, (total, count) in zip(self._sums, rows, strict=True)
        }


class Stopwatch:
    """Seconds spent in each phase of a step."""

    def __init__(self, device: torch.device) -> None:
        """Keep the device: a GPU's work counts where it was asked for, so it is waited for."""
        self._device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a phase."""
        begin = self.now()
        yield
        self.seconds[name] += self.now() - begin

    def now(self) -> float:
        """Seconds on a monotonic clock, after the device has done its work."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


class StepLog:
    """The files and the progress lines of one training."""

    def __init__(self, folder: Path, *, max_steps: int, every_s: float) -> None:
        """Write into a training's folder.

        Args:
            folder: training/<name>.
            max_steps: Steps of the whole run.
            every_s: Seconds between progress lines.
        """
        self._folder = folder
        self._max_steps = max_steps
        self._every_s = every_s
        self._began = time.monotonic()
        self._first_step: int | None = None
        self._last_shown = -math.inf

    def forget_after(self, step: int) -> None:
        """Drop the lines of steps that a resumed run will do again."""
        forget_after(self._folder, step)

    def write_metrics(self, metrics: StepMetrics) -> None:
        """Append one step's metrics and show progress."""
        append_metrics(self._folder, metrics)
        self._show(metrics)

    def write_completion(self, sampled: Sampled) -> None:
        """Append one sampled completion."""
        append_sampled(self._folder, sampled)

    def _show(self, metrics: StepMetrics) -> None:
        step = metrics.step
        now = time.monotonic()
        if self._first_step is None:
            self._first_step, self._began = step, now
        if now - self._last_shown < self._every_s and step != self._max_steps:
            return
        self._last_shown = now
        shown = [
            f"{short} {value:.4g}"
            for name, short in SHOWN.items()
            if (value := metrics.numbers().get(name)) is not None
        ]
        print(  # noqa: T201  the parent process reads these lines
            f"step {step}/{self._max_steps} {' '.join(shown)} eta {self._eta(step, now)}",
            flush=True,
        )

    def _eta(self, step: int, now: float) -> str:
        done = step - (self._first_step or 0)
        if not done:
            return "?"
        left_s = round((now - self._began) / done * (self._max_steps - step))
        return f"{left_s // 3600}:{left_s % 3600 // 60:02d}:{left_s % 60:02d}"
