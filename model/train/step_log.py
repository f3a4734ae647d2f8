"""What one watches: metrics.jsonl, completions.jsonl, progress lines for a parent, and trackers.

A progress line reads `step 120/600 loss 0.0123 reward 1.42 accuracy 0.55 kl 0.011`.
TensorBoard and W&B are accelerate's; a resumed training goes on in the run it began.
"""

import math
import os
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker
from torch import Tensor

from model.config import TrainConfig
from storage.errors import PipelineError
from storage.jsonl import write_text
from storage.records.training import (
    WATCHED,
    Sampled,
    StepMetrics,
    append_metrics,
    append_sampled,
    forget_after,
    read_metrics,
    stopping_step,
    warnings_of,
)

WORDS = 20  # characters that tell one warning from another
TENSORBOARD = "runs"  # folder of its events, in the training's
WANDB_ID = "wandb-id.txt"  # names the run there, across resumes and moved workspaces


class Mean(NamedTuple):
    """A sum and what it is divided by when shown; adds up over micro-batches and devices."""

    total: float
    number: float


class Means:
    """Sums and counts of one optimiser step."""

    def __init__(self) -> None:
        """Start empty."""
        self.sums: dict[str, Mean] = {}

    def add(self, name: str, values: Tensor) -> None:
        """Add every element of a tensor."""
        self.add_sum(name, float(values.sum()), values.numel())

    def add_sum(self, name: str, total: float, count: float) -> None:
        """Add a sum and its count."""
        before = self.sums.get(name, Mean(0.0, 0.0))
        self.sums[name] = Mean(before.total + total, before.number + count)

    def add_all(self, others: "Means") -> None:
        """Add what another counted."""
        for name, mean in others.sums.items():
            self.add_sum(name, mean.total, mean.number)

    def as_tensor(self) -> Tensor:
        """Sums and counts, float64, (names, 2), to be added up over devices."""
        return torch.tensor([list(mean) for mean in self.sums.values()], dtype=torch.float64)

    def means(self, sums: Tensor) -> dict[str, float | None]:
        """Each name's mean from added-up sums; None where nothing was counted."""
        rows = sums.tolist()
        return {
            name: total / count if count else None
            for name, (total, count) in zip(self.sums, rows, strict=True)
        }


class Stopwatch:
    """Seconds spent in a step and in each phase of it."""

    def __init__(self, device: torch.device) -> None:
        """Keep the device: a GPU's work counts where it was asked for, so it is waited for."""
        self._device = device
        self._seconds: dict[str, float] = defaultdict(float)
        self._began = 0.0

    def start(self) -> None:
        """Begin a step."""
        self._seconds.clear()
        self._began = self._now()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a phase."""
        begin = self._now()
        yield
        self._seconds[name] += self._now() - begin

    def read(self) -> dict[str, float]:
        """Seconds of the step so far, by phase and in all as `total`."""
        return {**self._seconds, "total": self._now() - self._began}

    def _now(self) -> float:
        """Seconds on a monotonic clock, after the device has done its work."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


class StepLog:
    """The files, trackers and progress lines of one training; other processes write none."""

    def __init__(
        self, config: TrainConfig, output: Path, *, steps_done: int, is_main: bool
    ) -> None:
        """Open them, and forget the steps that a resumed run will do again.

        Args:
            config: Of the training.
            output: Its folder.
            steps_done: Optimiser steps done.
            is_main: Whether this process writes.
        """
        self._config = config
        self._output = output
        self._is_main = is_main
        self._trackers: list[GeneralTracker] = []
        self._last_shown = -math.inf
        self._steps: list[StepMetrics] = []
        self._told: set[str] = set()
        if is_main:
            forget_after(output, steps_done)
            self._steps = read_metrics(output)
            self._trackers = start_trackers(config, output, steps_done + 1)

    def write_metrics(self, metrics: StepMetrics) -> None:
        """Append one step's metrics, send them to the trackers and show progress."""
        if not self._is_main:
            return
        append_metrics(self._output, metrics)
        track(self._trackers, metrics)
        self._show(metrics)

    def write_completions(self, sampled: Iterable[Sampled]) -> None:
        """Append sampled completions."""
        if self._is_main:
            for completion in sampled:
                append_sampled(self._output, completion)

    def is_stopped(self) -> bool:
        """Whether validation has ended the run, as `stop` has it; False in other processes."""
        stop = self._config.stop
        return stop is not None and stopping_step(self._steps, stop.patience) is not None

    def close(self) -> None:
        """End the trackers."""
        for tracker in self._trackers:
            tracker.finish()

    def _show(self, metrics: StepMetrics) -> None:
        self._steps.append(metrics)
        step, last, now = metrics.step, self._config.max_steps, time.monotonic()
        if step % WATCHED == 0:
            for warning in warnings_of(self._steps):
                if warning[:WORDS] not in self._told:
                    self._told.add(warning[:WORDS])
                    print(f"warning: step {step}: {warning}", flush=True)  # noqa: T201  the log
        if now - self._last_shown >= self._config.progress_every_s or step == last:
            self._last_shown = now
            print(f"step {step}/{last} {metrics.shown()}", flush=True)  # noqa: T201  the log


def start_trackers(config: TrainConfig, output: Path, first_step: int) -> list[GeneralTracker]:
    """Open what the settings name; in the main process alone.

    Args:
        config: Of the training.
        output: Its folder.
        first_step: The step to come; what was logged from it on is replaced.

    Raises:
        PipelineError: If wandb is asked for and not installed.
    """
    trackers: list[GeneralTracker] = []
    if "tensorboard" in config.report_to:
        trackers.append(TensorBoardTracker(TENSORBOARD, output, purge_step=first_step))
    if "wandb" in config.report_to:
        if find_spec("wandb") is None:
            msg = "report_to wandb needs the package wandb: install it, or take it out of report_to"
            raise PipelineError(msg)
        project = os.environ.get("WANDB_PROJECT", "r1-aqa")
        settings = {"id": _wandb_id(output), "resume": "allow", "name": config.name}
        trackers.append(WandBTracker(project, dir=str(output), **settings))
    for tracker in trackers:
        tracker.start()
    return trackers


def track(trackers: Sequence[GeneralTracker], metrics: StepMetrics) -> None:
    """Send one step's numbers, named `train/reward`, `train/seconds/rollout`, ..."""
    numbers = {f"train/{name}": value for name, value in metrics.trackable().items()}
    for tracker in trackers:
        tracker.log(numbers, step=metrics.step)


def _wandb_id(output: Path) -> str:
    path = output / WANDB_ID
    if not path.exists():
        write_text(path, uuid.uuid4().hex)
    return path.read_text(encoding="utf-8")
