"""Entry point of the training process: `python -m model.run_training RUN.json`.

It is also what torchrun starts. RUN.json is a `TrainingRecord`, in the training's folder. The run
goes on from the newest whole checkpoint there, prints progress lines, and ends with exit code 0
behind the last step's checkpoint. SIGTERM ends it at once; what was being written stays
under another name and is thrown away by the next start.
"""

import signal
import sys
from pathlib import Path
from types import FrameType

import torch
from transformers.utils import logging as transformers_logging

from model import checkpoints
from model.command import run_command
from model.network.measure import measure_config
from model.train.estimates import check_fits, estimate
from model.train.loop import train_steps
from model.train.session import open_session
from model.train.sharding import is_main_process, world_size
from model.train.state import report_movement
from model.training_record import TrainingRun, read_run
from storage.errors import PipelineError

TERMINATED = 128 + signal.SIGTERM


def main(arguments: list[str]) -> int:
    """Run the training that a file describes; an expected failure is one line and its exit code."""
    signal.signal(signal.SIGTERM, _end)
    return run_command(arguments, "RUN.json", lambda path: train(read_run(Path(path))))


def train(run: TrainingRun) -> None:
    """Train from the newest whole checkpoint, or from the start model, to the last step."""
    config = run.config
    config.num_passes(world_size())  # or it refuses
    if config.attention == "flex" and not torch.cuda.is_available():
        msg = (
            f"train {config.name}: attention flex needs a GPU, as torch's FlexAttention has no "
            "backward pass on a CPU; set attention to sdpa"
        )
        raise PipelineError(msg)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    resume_from = checkpoints.find_resumable(run.output, run.record.parent)
    if resume_from is not None and is_main_process():
        is_own = resume_from.parent == run.output
        checkpoints.check_resumed(resume_from, run.deciding if is_own else None)
    if checkpoints.is_ended(config, run.output):
        step = checkpoints.last_step(run.output)
        print(f"step {step}/{config.max_steps} is done already")  # noqa: T201  progress
        return
    check_memory(run)
    train_steps(open_session(run, resume_from))
    if is_main_process():
        step = checkpoints.last_step(run.output)
        if config.stop and step != config.max_steps:
            print(  # noqa: T201  the log of the training
                f"stopped at step {step} of {config.max_steps}: {config.stop.patience} "
                "validation(s) in a row were no better than the best before"
            )
        report_movement(run, checkpoints.masters_of(run.output / f"checkpoint-{step}"))


def check_memory(run: TrainingRun) -> None:
    """Print what the training will need of a GPU, and refuse what the GPU cannot hold."""
    if not torch.cuda.is_available():
        return
    needed = estimate(run.config, measure_config(run.start_model), num_gpus=world_size())
    if is_main_process():
        print(f"memory, estimated: {needed.text()}", flush=True)  # noqa: T201  the log of the training
    check_fits(needed, torch.cuda.get_device_properties(0).total_memory)


def _end(signal_number: int, frame: FrameType | None) -> None:
    del signal_number, frame
    sys.exit(TERMINATED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
