"""What one watches: metrics.jsonl, completions.jsonl, progress lines for a parent, and trackers.

A progress line reads `step 120/600 loss 0.0123 reward 1.42 accuracy 0.55 kl 0.011`.
TensorBoard and W&B are accelerate's; a resumed training goes on in the run it began.
"""

import math
import os
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker
from torch import Tensor

from model.config import TrainConfig
from model.network.features import Batch
from storage.jsonl import write_text
from storage.records.training import (
    WATCHED,
    Sampled,
    StepMetrics,
    append_metrics,
    append_sampled,
    forget_after,
    read_metrics,
    warnings_of,
)

WORDS = 20  # characters that tell one warning from another
TENSORBOARD = "runs"  # folder of its events, in the training's
WANDB_ID = "wandb-id.txt"  # names the run there, across resumes and moved workspaces


class Means:
    """Sums of one optimiser step, each with the number that it is divided by when shown."""

    def __init__(self) -> None:
        """Start empty."""
        self.sums: dict[str, Tensor] = {}

    def add(self, name: str, values: Tensor) -> None:
        """Add every element of a tensor."""
        self.add_sum(name, float(values.sum()), values.numel())

    def add_sum(self, name: str, total: float, number: float) -> None:
        """Add a sum and its number."""
        added = torch.tensor([total, number], dtype=torch.float64)
        self.sums[name] = self.sums[name] + added if name in self.sums else added


def count_tokens(means: Means, prompt: Batch, completion_mask: Tensor) -> None:
    """Count the tokens of a micro-batch, for its speed."""
    means.add_sum("prompt_tokens", float(prompt["prompt_mask"].sum()), 1)
    means.add_sum("predicted_tokens", float(completion_mask.sum()), 1)
    means.add_sum("encoder_positions", float(prompt["num_frames"].sum()) / 2, 1)


class Stopwatch:
    """Seconds spent in a step and in each phase of it."""

    def __init__(self, device: torch.device) -> None:
        """Keep the device: a GPU's work counts where it was asked for, so it is waited for."""
        self._device = device
        self.start()

    def start(self) -> None:
        """Begin a step."""
        self._seconds: dict[str, float] = defaultdict(float)
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
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


class StepLog:
    """The files, trackers and progress lines of one training; other processes write none."""

    def __init__(
        self, config: TrainConfig, output: Path, *, steps_done: int, is_main: bool
    ) -> None:
        """Open them, and forget the steps that a resumed run will do again."""
        self._config = config
        self._output = output
        self._is_main = is_main
        self._trackers: list[GeneralTracker] = []
        self._last_shown = -math.inf
        self.steps: list[StepMetrics] = []
        self._told: set[str] = set()
        if is_main:
            forget_after(output, steps_done)
            self.steps = read_metrics(output)
            self._trackers = start_trackers(config, output, first_step=steps_done + 1)

    def write_metrics(self, metrics: StepMetrics) -> None:
        """Append one step's metrics, send them to the trackers and show progress."""
        if not self._is_main:
            return
        append_metrics(self._output, metrics)
        self.steps.append(metrics)
        step, last, now = metrics.step, self._config.max_steps, time.monotonic()
        for tracker in self._trackers:
            numbers = metrics.trackable().items()
            tracker.log({f"train/{name}": value for name, value in numbers}, step=step)
        for warning in warnings_of(self.steps) if step % WATCHED == 0 else ():
            if warning[:WORDS] not in self._told:
                self._told.add(warning[:WORDS])
                print(f"warning: step {step}: {warning}", flush=True)  # noqa: T201  the log
        if now - self._last_shown >= self._config.progress_every_s or step == last:
            self._last_shown = now
            print(f"step {step}/{last} {metrics.shown()}", flush=True)  # noqa: T201  the log

    def write_completions(self, sampled: Iterable[Sampled]) -> None:
        """Append sampled completions."""
        if self._is_main:
            for completion in sampled:
                append_sampled(self._output, completion)

    def close(self) -> None:
        """End the trackers."""
        for tracker in self._trackers:
            tracker.finish()


def start_trackers(config: TrainConfig, output: Path, *, first_step: int) -> list[GeneralTracker]:
    """Open what the settings name; what was logged from the step to come on is replaced."""
    trackers: list[GeneralTracker] = []
    if "tensorboard" in config.report_to:
        trackers.append(TensorBoardTracker(TENSORBOARD, output, purge_step=first_step))
    if "wandb" in config.report_to:
        named = output / WANDB_ID
        if not named.exists():
            write_text(named, uuid.uuid4().hex)
        settings = {"id": named.read_text(encoding="utf-8"), "resume": "allow", "name": config.name}
        project = os.environ.get("WANDB_PROJECT", "r1-aqa")
        trackers.append(WandBTracker(project, dir=str(output), **settings))
    for tracker in trackers:
        tracker.start()
    return trackers
