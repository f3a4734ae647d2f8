"""TensorBoard and W&B, by accelerate's trackers; a resumed training goes on in the run it began."""

import os
import uuid
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker

from model.config import TrainConfig
from storage.errors import PipelineError
from storage.jsonl import write_text
from storage.records.training import StepMetrics

TENSORBOARD = "runs"  # folder of its events, in the training's
WANDB_ID = "wandb-id.txt"  # names the run there, across resumes and moved workspaces


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
