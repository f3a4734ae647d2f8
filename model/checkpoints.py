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

from pydantic import JsonValue
from safetensors import SafetensorError

from model.config import CheckpointsConfig, TrainConfig
from model.training_record import TrainingRun
from storage.errors import PipelineError
from storage.layout import list_checkpoints
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


def publish(folder: Path, run: TrainingRun, made_with: Mapping[str, JsonValue]) -> None:
    """Give what is written in `saving.part/` its record and its place, and old ones up."""
    seal(folder, run.deciding, made_with)
    target = run.output / folder.name
    if target.exists():  # torn, or made by a run that was since resumed from before it
        shutil.rmtree(target)
    folder.replace(target)
    discard_unfinished(run.output)
    strip_old(run.output, run.config.checkpoints)


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
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
    record = CheckpointRecord(
        step=step_of(folder),
        can_resume=OPTIMIZER in files,
        settings=dict(settings),
        made_with=dict(made_with),
        files=files,
        digests={name: file_digest(folder / name) for name in files if name.endswith(LOADED)},
    )
    record.write(folder / CHECKPOINT)


def is_whole(folder: Path) -> bool:
    """Whether every file of the checkpoint is there with its size."""
    return _whole(folder) is not None


def find_resumable(training: Path, parent: ModelRef | None = None) -> Path | None:
    """The checkpoint to go on from: the training's newest, else its parent; None: there is none.

    Raises:
        PipelineError: If the parent's optimiser state is gone; names the nearest that has it.
    """
    if own := _list_resumable(training):
        return own[-1]
    if parent is None:
        return None
    folder = Path(parent.path)
    others = _list_resumable(folder.parent)
    if folder in others:
        return folder
    others.sort(key=lambda other: abs(step_of(other) - step_of(folder)))
    nearest = f"the nearest that has it is step {step_of(others[0])}" if others else "none has it"
    msg = (
        f"{parent.key} cannot be continued: its optimiser's state is gone; {nearest}. Raise "
        "checkpoints.full before a training, or start from its weights (model: training:NAME@STEP)"
    )
    raise PipelineError(msg)


def check_resumed(folder: Path, settings: Mapping[str, JsonValue] | None) -> None:
    """Refuse to go on from a checkpoint of other settings, or of other bytes than were written.

    Args:
        folder: The checkpoint.
        settings: Those that decide the run; None: it is another training's.
    """
    record = CheckpointRecord.read(folder / CHECKPOINT)
    before, now = record.settings, record.settings if settings is None else settings
    differing = [
        f"{key} (was {before.get(key)!r}, now {now.get(key)!r})"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if differing:
        msg = (
            f"{folder} was made with other settings: {'; '.join(differing)}. A resumed run must be "
            "the same run: set them back, give the training another name, or delete "
            f"{folder.parent}"
        )
        raise PipelineError(msg)
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
    """Let a PipelineError say so where a checkpoint cannot be written because the disk is full."""
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


def strip_old(training: Path, kept: CheckpointsConfig) -> None:
    """Keep of all but the newest checkpoints only the weights, or not even those."""
    for folder in list_checkpoints(training)[: -kept.full]:
        record = _record(folder)
        if kept.may_go(step_of(folder)):
            (folder / CHECKPOINT).unlink(missing_ok=True)  # torn from here on
            shutil.rmtree(folder)
        elif record is not None and record.can_resume:
            resuming = [n for n in record.files if n == OPTIMIZER or n.startswith(f"{MASTERS}/")]
            files = {name: size for name, size in record.files.items() if name not in resuming}
            # The record first: a kill in between leaves a whole checkpoint with extra files.
            stripped = record.model_copy(update={"can_resume": False, "files": files})
            stripped.write(folder / CHECKPOINT)
            (folder / OPTIMIZER).unlink(missing_ok=True)
            shutil.rmtree(folder / MASTERS, ignore_errors=True)


def discard_unfinished(training: Path) -> None:
    """Remove what an interrupted save left behind."""
    shutil.rmtree(training / SAVING, ignore_errors=True)


def step_of(folder: Path) -> int:
    """The optimiser step in a checkpoint folder's name."""
    return int(folder.name.removeprefix("checkpoint-"))


def last_step(training: Path) -> int | None:
    """Step of the newest whole checkpoint, resumable or not; None if there is none."""
    steps = [step_of(folder) for folder in list_checkpoints(training) if is_whole(folder)]
    return steps[-1] if steps else None


def end_of(config: TrainConfig, training: Path) -> int | None:
    """The step with which a training ends; None where its validation is still to tell."""
    return end_step(training, config.max_steps, config.stop and config.stop.patience)


def is_ended(config: TrainConfig, training: Path) -> bool:
    """Whether the checkpoint of a training's last step is whole."""
    last = last_step(training)
    return last is not None and last == end_of(config, training)


def _list_resumable(training: Path) -> list[Path]:
    """The whole checkpoints that have their optimiser's state, by step."""
    folders = list_checkpoints(training)
    return [folder for folder in folders if (whole := _whole(folder)) and whole.can_resume]


def _whole(folder: Path) -> CheckpointRecord | None:
    record = _record(folder)
    files = ((folder / name, size) for name, size in record.files.items()) if record else ()
    return record if all(f.is_file() and f.stat().st_size == size for f, size in files) else None


def _record(folder: Path) -> CheckpointRecord | None:
    try:
        return CheckpointRecord.read(folder / CHECKPOINT)
    except PipelineError:  # missing, torn, or of another version
        return None
