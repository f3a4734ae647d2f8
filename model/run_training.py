"""Entry point of the training process: `python -m model.run_training RUN.json`.

It is also what torchrun starts. RUN.json is a `TrainingRecord`, in the training's folder. The run
goes on from the newest whole checkpoint there, prints progress lines, and ends with exit code 0
only when the last step's checkpoint is whole. SIGTERM ends it at once; what was being written stays
under another name and is thrown away by the next start.
"""

import signal
import sys
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import torch
from pydantic import JsonValue
from torch import nn
from transformers import ProcessorMixin, set_seed
from transformers.utils import logging as transformers_logging

from model import checkpoints
from model.command import run_command
from model.config import TrainConfig
from model.network.family import freeze_parts
from model.network.loading import load_base, load_model, load_processor, stop_tokens
from model.network.measure import measure_config
from model.network.policy import add_adapter, load_adapter, name_base, without_adapter
from model.train.examples import Checked, Example, check_examples, read_examples, write_dropped
from model.train.loop import TrainingInputs, train_steps
from model.train.memory import check_fits, estimate
from model.train.sharding import is_main_process, world_size
from model.train.state import measure_movement
from model.training_record import card_text, config_of
from storage.errors import PipelineError
from storage.jsonl import write_json
from storage.records.question import list_ids
from storage.records.training import TrainingRecord

VALIDATION = "validation.jsonl"
TERMINATED = 128 + signal.SIGTERM


class TrainingRun(NamedTuple):
    """One training."""

    record: TrainingRecord
    """What it is."""
    config: TrainConfig
    """Its settings."""
    output: Path
    """Its folder: checkpoints, metrics.jsonl, completions.jsonl, dropped.jsonl."""

    @property
    def start_model(self) -> str:
        """Folder or hub name of the model that it starts from."""
        return self.record.start.path


def main(arguments: list[str]) -> int:
    """Run the training that a file describes; an expected failure is one line and its exit code."""
    signal.signal(signal.SIGTERM, _end)
    return run_command(arguments, "RUN.json", lambda path: train(read_run(Path(path))))


def read_run(path: Path) -> TrainingRun:
    """Read a training's run.json.

    Raises:
        PipelineError: If it is missing or none; names what is wrong in it.
    """
    record = TrainingRecord.read(path)
    return TrainingRun(record, config_of(record), path.parent)


def train(run: TrainingRun) -> None:
    """Train from the newest whole checkpoint, or from the start model, to the last step."""
    config = run.config
    check_settings(config)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    settings = checkpoints.settings_that_decide(config, run.record.start, run.record.parent)
    resume_from = checkpoints.find_resumable(run.output, run.record.parent)
    if resume_from is not None and resume_from.parent == run.output:
        checkpoints.check_same_settings(resume_from, settings)
    if resume_from is not None and is_main_process():
        checkpoints.check_content(resume_from)
    if checkpoints.is_ended(config, run.output):
        step = checkpoints.last_step(run.output)
        print(f"step {step}/{config.max_steps} is done already")  # noqa: T201  progress
        return
    check_memory(run)
    set_seed(config.seed)
    train_steps(load(run, settings, resume_from), resume_from)
    if is_main_process():
        step = checkpoints.end_of(config, run.output)
        if step is None or not checkpoints.is_ended(config, run.output):
            msg = f"{run.output} has no whole checkpoint-{step or config.max_steps}: train again"
            raise PipelineError(msg)
        if config.stop and step < config.max_steps:
            print(  # noqa: T201  the log of the training
                f"stopped at step {step} of {config.max_steps}: {config.stop.patience} "
                "validation(s) in a row were no better than the best before"
            )
        report_movement(run, run.output / f"checkpoint-{step}")


def report_movement(run: TrainingRun, last: Path) -> None:
    """Write movement.json: how far each part of the model has moved up to a checkpoint."""
    last = checkpoints.masters_of(last)
    movement = measure_movement(run.start_model, last, run.config)
    write_json(run.output / "movement.json", {part: m._asdict() for part, m in movement.items()})
    for part, moved in movement.items():
        print(  # noqa: T201  the log of the training
            f"{part}: {moved.moved_share:.1%} of {moved.num_parameters:,} weights moved, "
            f"by {moved.relative_change:.2g} of their norm"
        )


def check_memory(run: TrainingRun) -> None:
    """Print what the training will need of a GPU, and refuse what the GPU cannot hold."""
    if not torch.cuda.is_available():
        return
    needed = estimate(run.config, measure_config(run.start_model), num_gpus=world_size())
    if is_main_process():
        print(f"memory, estimated: {needed.text()}", flush=True)  # noqa: T201  the log of the training
    check_fits(needed, torch.cuda.get_device_properties(0).total_memory)


def check_settings(config: TrainConfig) -> None:
    """Refuse settings that contradict each other.

    Raises:
        PipelineError: If so; says which.
    """
    config.num_passes(world_size())
    if config.attention == "flex" and not torch.cuda.is_available():
        msg = (
            f"train {config.name}: attention flex needs a GPU, as torch's FlexAttention has no "
            "backward pass on a CPU; set attention to sdpa"
        )
        raise PipelineError(msg)
    reuse = config.grpo.steps_per_rollout
    if config.method == "grpo" and config.save_steps % reuse:
        msg = (
            f"save_steps {config.save_steps} is no multiple of grpo.steps_per_rollout {reuse}: a "
            "checkpoint in the middle of a rollout could not be resumed; change one of them"
        )
        raise PipelineError(msg)


def load(
    run: TrainingRun, settings: dict[str, JsonValue], resume_from: Path | None
) -> TrainingInputs:
    """Load model and data as the step to start from needs them."""
    config = run.config
    processor = load_processor(run.start_model)
    network = _network(run, resume_from)
    examples = read_examples(run.record.examples, config.example_repeats)
    checked = check_examples(examples, processor, config)
    if is_main_process():
        write_dropped(run.output / "dropped.jsonl", checked)
        _tell(run, checked, resume_from)
    return TrainingInputs(
        config=config,
        settings=settings,
        output=run.output,
        network=network,
        reference=_reference(run),
        processor=processor,
        examples=checked.kept,
        held_out=_held_out(run, processor),
        stop_ids=stop_tokens(without_adapter(network), processor),
        sizes=measure_config(run.start_model),
        card=partial(
            card_text,
            config,
            start=run.record.start,
            num_examples=len(checked.kept),
            num_dropped=len(checked.dropped),
        ),
    )


def _held_out(run: TrainingRun, processor: ProcessorMixin) -> list[Example]:
    """Questions to ask at each checkpoint, taken evenly over the file beside the examples."""
    number, file = run.config.validation_questions, run.record.examples.with_name(VALIDATION)
    if not number:
        return []
    if not file.exists():
        msg = (
            f"validation_questions is {number}, and there is no {file}: set annotations.validation"
        )
        raise PipelineError(msg)
    found = check_examples(read_examples(file), processor, run.config).kept
    number = min(number, len(found))
    return [found[index * len(found) // number] for index in range(number)]


def _reference(run: TrainingRun) -> nn.Module | None:
    """The start model, frozen; an adapter's base is its own reference, and beta 0 needs none."""
    config = run.config
    if config.method == "sft" or config.grpo.beta == 0 or config.lora is not None:
        return None
    precision = "bf16" if torch.cuda.is_available() and config.precision != "fp32" else "fp32"
    model = load_model(
        run.start_model,
        precision=precision,
        attention=config.attention,
        is_empty=not is_main_process(),
    )
    return model.requires_grad_(requires_grad=False)


def _network(run: TrainingRun, resume_from: Path | None) -> nn.Module:
    """The model to train, from the start model or from the checkpoint; only one process reads."""
    config, weights = run.config, run.start_model
    if resume_from and config.lora is None:
        weights = checkpoints.masters_of(resume_from)
    base = load_base(
        weights,
        precision=config.precision,
        attention=config.attention,
        is_empty=not is_main_process(),
    )
    if config.lora is not None:
        model = load_adapter(base, resume_from) if resume_from else add_adapter(base, config.lora)
        return name_base(model, run.record.start, run.output.absolute())
    freeze_parts(base, config.freeze)
    return base


def _tell(run: TrainingRun, checked: Checked, resume_from: Path | None) -> None:
    """Say what it learns from, and where from; the log of the training."""
    print(f"{len(checked.kept)} examples, {len(checked.dropped)} dropped")  # noqa: T201
    if checked.cut:
        ids = list_ids(checked.cut)
        print(f"{len(checked.cut)} clips are longer than the model hears; cut: {ids}")  # noqa: T201
    rounded = ", as evaluated: rounded to bf16" if run.record.is_start_rounded else ""
    begin = (
        f"from the start model{rounded}"
        if resume_from is None
        else f"from {resume_from.parent.name}/{resume_from.name}"
    )
    watch = (
        "; a loss near 0 is expected (it is beta x KL while each rollout serves one step): watch "
        "the reward"
    )
    print(f"training {begin}{watch if run.config.method == 'grpo' else ''}", flush=True)  # noqa: T201


def _end(signal_number: int, frame: FrameType | None) -> None:
    del signal_number, frame
    sys.exit(TERMINATED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
