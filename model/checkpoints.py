"""Checkpoints of a training: which one is whole, which can be resumed, which only evaluated.

A checkpoint is written in `saving.part/` and moved to `checkpoint-<step>` when all of it is on the
disk. Its last file, `checkpoint.json`, lists every file with its size and holds the settings that
made it; a folder whose files do not match that list (a copy that broke off, a disk that filled up)
is torn and passed over.
"""

# pyright: strict

import os
import re
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from pydantic import JsonValue
from safetensors import SafetensorError

from model.config import CheckpointsConfig, TrainConfig
from model.training_record import decided_by
from storage.errors import PipelineError
from storage.layout import checkpoint_step, list_checkpoints
from storage.manifest import file_digest
from storage.records.model import ModelRef
from storage.records.training import CHECKPOINT, CheckpointRecord, end_step

LOADED = (".safetensors", ".pt")  # ends of the files that are worth a digest
SAVING = "saving.part"  # folder in which a checkpoint is written
# What only resuming needs; the rest of a checkpoint is what `from_pretrained` reads.
OPTIMIZER = "optimizer.pt"
MASTERS = "masters"  # folder of the fp32 weights, where those beside it are rounded to bf16
# How a full disk shows, by OS, safetensors and torch.
FULL = re.compile(r"No space left|[Qq]uota|File too large|os error (27|28|122)|StreamWriter failed")


def seal(
    folder: Path, settings: Mapping[str, JsonValue], made_with: Mapping[str, JsonValue]
) -> None:
    """Write the record of a checkpoint's files, flushed to the disk; the last file written."""
    files = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != CHECKPOINT
    }
    for name in files:
        _flush(folder / name)
    record = CheckpointRecord(
        step=step_of(folder),
        can_resume=OPTIMIZER in files,
        settings=dict(settings),
        made_with=dict(made_with),
        files=files,
        digests={name: file_digest(folder / name) for name in files if name.endswith(LOADED)},
    )
    record.write(folder / CHECKPOINT)


def publish(folder: Path, training: Path) -> Path:
    """Move a sealed checkpoint to its name in the training's folder; one rename."""
    target = training / folder.name
    if target.exists():  # torn, or made by a run that was since resumed from before it
        shutil.rmtree(target)
    folder.replace(target)
    return target


def is_whole(folder: Path) -> bool:
    """Whether every file of the checkpoint is there with its size."""
    record = _record(folder)
    return record is not None and all(
        (folder / name).is_file() and (folder / name).stat().st_size == size
        for name, size in record.files.items()
    )


def list_resumable(training: Path) -> list[Path]:
    """The whole checkpoints that have their optimiser's state, by step."""
    return [
        folder
        for folder in list_checkpoints(training)
        if (record := _record(folder)) is not None and record.can_resume and is_whole(folder)
    ]


def find_resumable(training: Path, parent: ModelRef | None = None) -> Path | None:
    """The checkpoint to go on from; None if there is none.

    Args:
        training: Folder of the training, whose newest it is.
        parent: The checkpoint that the training continues where it has none of its own.

    Raises:
        PipelineError: If the parent's optimiser state is gone; names the nearest that has it.
    """
    if own := list_resumable(training):
        return own[-1]
    if parent is None:
        return None
    folder = Path(parent.path)
    others = list_resumable(folder.parent)
    if folder in others:
        return folder
    others.sort(key=lambda other: abs(step_of(other) - step_of(folder)))
    nearest = f"the nearest that has it is step {step_of(others[0])}" if others else "none has it"
    msg = (
        f"{parent.key} cannot be continued: its optimiser's state is gone; {nearest}. Raise "
        "checkpoints.full before a training, or start from its weights (model: training:NAME@STEP)"
    )
    raise PipelineError(msg)


def check_content(folder: Path) -> None:
    """Refuse to go on from a checkpoint whose files hold other bytes than were written.

    Raises:
        PipelineError: If so; names the file and what to do.
    """
    record = _record(folder)
    if record is None:
        return
    for name, digest in record.digests.items():
        if name in record.files and file_digest(folder / name) != digest:
            msg = (
                f"{folder / name} holds other bytes than were written (the disk, a copy?): "
                f"delete {folder} and start again; it goes on from the checkpoint before"
            )
            raise PipelineError(msg)


def masters_of(folder: Path) -> Path:
    """Folder of the weights to train on: the masters, where there are such."""
    return folder / MASTERS if (folder / MASTERS).is_dir() else folder


@contextmanager
def naming_a_full_disk(folder: Path) -> Generator[None]:
    """Say so where a checkpoint cannot be written because the disk is full.

    Raises:
        PipelineError: If it is.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not FULL.search(str(error)):
            raise
        free = shutil.disk_usage(folder).free / 1e9
        msg = (
            f"{folder.name} cannot be written into {folder.parent.parent}, where {free:.1f} GB are "
            f"free: {error}. Free some (`python -m flows.prune` tells what may go, the setting "
            "`checkpoints` keeps less) and start again: it goes on from the last whole checkpoint"
        )
        raise PipelineError(msg) from error


def check_same_settings(folder: Path, settings: Mapping[str, JsonValue]) -> None:
    """Refuse to go on from a checkpoint that other settings made.

    Raises:
        PipelineError: If so; names the keys, with both values.
    """
    record = _record(folder)
    before = {} if record is None else record.settings
    differing = [
        f"{key} (was {before.get(key)!r}, now {settings.get(key)!r})"
        for key in sorted(before.keys() | settings.keys())
        if before.get(key) != settings.get(key)
    ]
    if differing:
        msg = (
            f"{folder} was made with other settings: {'; '.join(differing)}. A resumed run must be "
            "the same run: set them back, give the training another name, or delete "
            f"{folder.parent}"
        )
        raise PipelineError(msg)


def settings_that_decide(
    config: TrainConfig, start: ModelRef, parent: ModelRef | None
) -> dict[str, JsonValue]:
    """The settings that decide what a run learns, flat: `grpo.beta: 0.04`."""
    flat: dict[str, JsonValue] = {"start_model_digest": start.digest}
    flat |= {} if parent is None else {"continues": parent.digest}
    for key, value in decided_by(config).items():
        if key == "stop":  # it changes no step, and may be raised
            continue
        if isinstance(value, dict):
            inner = cast("dict[str, JsonValue]", value)
            flat.update({f"{key}.{name}": inner_value for name, inner_value in inner.items()})
        else:
            flat[key] = value
    return flat


def strip_old(training: Path, kept: CheckpointsConfig) -> None:
    """Keep of all but the newest checkpoints only the weights, or not even those."""
    for folder in list_checkpoints(training)[: -kept.full]:
        record = _record(folder)
        if kept.may_go(step_of(folder)):
            (folder / CHECKPOINT).unlink(missing_ok=True)  # torn from here on
            shutil.rmtree(folder)
        elif record is not None and record.can_resume:
            _strip(folder, record)


def discard_unfinished(training: Path) -> None:
    """Remove what an interrupted save left behind."""
    shutil.rmtree(training / SAVING, ignore_errors=True)


def step_of(folder: Path) -> int:
    """The optimiser step in a checkpoint folder's name."""
    step = checkpoint_step(folder)
    if step is None:
        msg = f"{folder} is no checkpoint folder: expected a name like checkpoint-100"
        raise ValueError(msg)
    return step


def last_step(training: Path) -> int | None:
    """Step of the newest whole checkpoint, resumable or not; None if there is none."""
    steps = [checkpoint_step(folder) for folder in list_checkpoints(training) if is_whole(folder)]
    return steps[-1] if steps else None


def end_of(config: TrainConfig, training: Path) -> int | None:
    """The step with which a training ends; None where its validation is still to tell."""
    return end_step(training, config.max_steps, config.stop and config.stop.patience)


def is_ended(config: TrainConfig, training: Path) -> bool:
    """Whether the checkpoint of a training's last step is whole."""
    last = last_step(training)
    return last is not None and last == end_of(config, training)


def _strip(folder: Path, record: CheckpointRecord) -> None:
    """Replace the record first: a kill in between leaves a whole checkpoint with extra files."""
    kept = {name: size for name, size in record.files.items() if not _only_resumes(name)}
    record.model_copy(update={"can_resume": False, "files": kept}).write(folder / CHECKPOINT)
    for name in record.files.keys() - kept.keys():
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / MASTERS, ignore_errors=True)


def _only_resumes(name: str) -> bool:
    return name == OPTIMIZER or name.startswith(f"{MASTERS}/")


def _record(folder: Path) -> CheckpointRecord | None:
    try:
        return CheckpointRecord.read(folder / CHECKPOINT)
    except PipelineError:  # missing, torn, or of another version
        return None


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
