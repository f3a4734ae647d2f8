"""Train: the training examples become checkpoints, in a child process that owns the GPUs.

The child (`python -m model.run_training RUN.json`) resumes by itself from its newest whole
checkpoint, so a retry and a second start of the pipeline are the same thing.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import cast
from uuid import UUID

from model.checkpoints import end_of, find_resumable, is_ended, last_step, step_of
from model.config import TrainConfig
from model.training_record import decided_by, training_record
from storage import manifest
from storage.errors import PipelineError
from storage.jsonl import read_jsonl
from storage.layout import Layout, list_checkpoints, name_aside
from storage.locks import is_locked, locked
from storage.records.evaluation import list_runs
from storage.records.model import ModelRef
from storage.records.training import METRICS, RUN, TrainingRecord, metrics_of
from tasks.models import REMEDY, is_gone, resolve, whole_checkpoints
from tasks.running.child_process import SILENCE_LIMIT_S, last_error_line
from tasks.running.console import RecordFile, Show, meter, say
from tasks.running.gpus import hold_gpus
from tasks.running.torchrun import calling, run_part
from tasks.running.turns import inherited
from tasks.stage import Unit, task

LOG = "trainer.log"


def train_unit(training: TrainConfig, layout: Layout) -> Unit:
    """What decides a training's outcome, and its checkpoints."""
    if not layout.train_jsonl.exists():
        msg = (
            f"{layout.train_jsonl} is missing. "
            "Run `python -m flows.convert` with this profile first."
        )
        raise PipelineError(msg)
    folder = layout.training(training.name)
    # `save_steps` may change on the way, and `stop` end it: what was saved is told behind the end.
    last = end_of(training, folder)
    steps = {step: folder / f"checkpoint-{step}" for step in range(1, training.max_steps + 1)}
    return Unit(
        name=f"train/{training.name}",
        layout=layout,
        parts={
            "settings": decided_by(training),
            "examples": _learned_from(training, layout),
            "start model": resolve(training.model, layout).digest,
        }
        | ({"continues": parent.digest} if (parent := parent_of(training, layout)) else {}),
        outputs=(*steps.values(), folder / METRICS),
        may_go=frozenset(path for step, path in steps.items() if step != last),
    )


def parent_of(training: TrainConfig, layout: Layout) -> ModelRef | None:
    """The checkpoint that a training continues."""
    return resolve(training.continued, layout) if training.continued else None


def _learned_from(training: TrainConfig, layout: Layout) -> str:
    """sha256 of the examples, and of those held out where these may end the training."""
    digest = examples_digest(layout.train_jsonl)
    if training.stop is None or not layout.validation_jsonl.exists():
        return digest
    return manifest.digest_of([digest, examples_digest(layout.validation_jsonl)])


def examples_digest(path: Path) -> str:
    """sha256 of training lines, whatever folder their clips lie in: a workspace may be moved."""
    status = path.stat()
    return _examples_digest(path, status.st_ino, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=16)  # it takes half a second, and who watches a training asks all the time
def _examples_digest(path: Path, *_state: int) -> str:
    lines = read_jsonl(path)
    named = [{**line, "audio_path": Path(str(line.get("audio_path"))).name} for line in lines]
    return manifest.digest_of(named)


@task("train-{training.name}", goes_on=True)  # from the newest whole checkpoint
def train(training: TrainConfig, layout: Layout) -> None:
    """Run one training to its last step, from wherever it stands.

    Run here and now, not submitted: a signal cannot interrupt a submitted task, and the GPU would
    stay busy after a cancel.
    """
    folder = layout.training(training.name)
    start, parent = resolve(training.model, layout), parent_of(training, layout)
    if is_gone(start):
        msg = f"checkpoint missing: {start.path}, from which {training.name} starts. {REMEDY}"
        raise PipelineError(msg)
    if (folder / RUN).exists():
        if _is_same_training(training, layout):
            _set_aside_made_again(folder, training)
        else:
            _set_evaluations_aside(training.name, set_aside(folder), layout)
    find_resumable(folder, parent)  # or refuse, before a GPU is held
    say(
        f"train {training.name}: {training.method}, {training.max_steps} steps from {start.key}; "
        f"log: {folder / LOG}"
    )
    with hold_gpus(training.num_gpus, f"training {training.name}") as gpus:
        training_record(
            training,
            start=start,
            parent=parent,
            examples=layout.train_jsonl,
            examples_sha256=_learned_from(training, layout),
            num_examples=len(read_jsonl(layout.train_jsonl)),
            num_devices=max(1, len(gpus)) * training.num_hosts,
        ).write(folder / RUN)
        with (
            calling(training, folder) as address,
            meter(training.name, training.max_steps) as progress,
        ):
            on_line = _Progress(training, folder, progress.show)
            run_part(
                *(training, folder, gpus, address),
                log=LOG,
                on_line=on_line,
                silence_s=SILENCE_LIMIT_S,
            )


def is_finished(training: TrainConfig, layout: Layout) -> bool:
    """Whether a training has been run to its end with these settings and inputs."""
    try:
        return train_unit(training, layout).verdict().is_done
    except PipelineError:  # an earlier training, or the examples, are still to come
        return False


def is_under_way(training: TrainConfig, layout: Layout) -> bool:
    """Whether what lies in the training's folder was begun with these settings and inputs."""
    try:
        return _is_same_training(training, layout)
    except PipelineError:  # not begun, or the training that it starts from is being made anew
        return False


def _is_same_training(training: TrainConfig, layout: Layout) -> bool:
    folder = layout.training(training.name)
    before = TrainingRecord.read(folder / RUN)
    start, parent = resolve(training.model, layout), parent_of(training, layout)
    old, new = ({**of, "stop": None} for of in (before.settings, decided_by(training)))
    return (
        old == new  # `stop` changes no step: with another it goes on, unless it had ended before
        and (last_step(folder) or 0) <= (end_of(training, folder) or training.max_steps)
        and before.start.digest == start.digest
        and (before.parent and before.parent.digest) == (parent and parent.digest)
        and (
            not layout.train_jsonl.exists()  # nobody can train by others; a report needs none
            or before.examples_sha256 == _learned_from(training, layout)
        )
    )


def set_aside(folder: Path) -> Path:
    """Keep under another name what other settings or inputs made: it may have cost days."""
    aside = name_aside(folder)
    folder.rename(aside)
    say(
        f"train {folder.name}: starts anew; what was there is kept in {aside}. To go on behind its "
        f"last step instead, restore it and add a training with `continues: {folder.name}@STEP`"
    )
    return aside


def _set_evaluations_aside(training: str, aside: Path, layout: Layout) -> None:
    """Keep with a replaced training what was measured of it."""
    for folder, run in list_runs(layout.evaluations):
        if run.model.training is not None and run.model.training.name == training:
            kept = aside / "evaluation" / run.key.folder
            kept.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(kept)


def _set_aside_made_again(folder: Path, training: TrainConfig) -> None:
    """Keep under another name what a run writes once more, having to begin before it.

    Where the last checkpoints were deleted, those left may hold no optimiser state. They are
    finished work, and on a GPU the new ones differ from them by rounding.
    """
    begin = find_resumable(folder)
    step = step_of(begin) if begin else 0
    again = [path for path in list_checkpoints(folder) if step_of(path) > step]
    if not again or is_ended(training, folder):
        return
    aside = name_aside(folder)
    aside.mkdir()
    for path in reversed(again):  # the newest first: a kill in between leaves the gap
        path.rename(aside / path.name)
    say(
        f"train {training.name}: trains again from "
        f"{begin.name if begin else 'the start model'}; what came after it is kept in {aside}"
    )


class _Progress:
    """Shows how far a training is, here and on Prefect's pages, as its metrics come."""

    def __init__(self, training: TrainConfig, folder: Path, show: Show) -> None:
        self._metrics = RecordFile(folder / METRICS)
        self._training = training
        self._show = show
        self._artifact: UUID | None = None
        self._shown_percent = -1

    def __call__(self, line: str) -> None:
        """The child has said something: look how far it is."""
        name = self._training.name
        if line.startswith(("warning: ", "stopped at ")):
            say(f"train {name}: {line}")
        if not (records := self._metrics.look()):
            return
        metrics = metrics_of(records[-1])
        note = metrics.shown()
        self._show(metrics.step, note)
        percent = 100 * metrics.step // self._training.max_steps
        if percent == self._shown_percent:
            return
        self._shown_percent = percent
        from prefect import artifacts  # noqa: PLC0415  who plans runs nothing

        from tasks.running.alive import asked_once  # noqa: PLC0415  the same

        with asked_once():
            if self._artifact is None:
                key = f"train-{name}".replace(".", "-")
                made = artifacts.create_progress_artifact(percent, key=key, description=note)
                self._artifact = cast("UUID", made)  # typed as if it might be awaited
            else:
                artifacts.update_progress_artifact(self._artifact, percent, description=note)


@contextmanager
def marked_as_training(layout: Layout) -> Generator[None]:
    """Let others see that a training of this experiment runs; several may, beside each other.

    Child processes hold the lock, too. The kernel takes it away when the last of them is gone: a
    training that was killed is told from one that takes its time.
    """
    # A look of is_training is waited for: it lasts for microseconds.
    lock = locked(layout.lock("trainings"), shared=True, wait=True)
    with lock as descriptor, inherited([descriptor] if descriptor else []):
        yield


def is_training(layout: Layout) -> bool:
    """Whether a training of this experiment runs, on any host that shares the workspace."""
    return is_locked(layout.lock("trainings"))


def seen_so_far(trainings: Sequence[TrainConfig], layout: Layout) -> list[tuple[str, int]]:
    """The checkpoints that trainings with these settings have written whole: path and identity.

    A checkpoint that was made again has another identity under the same path.
    """
    return [
        (str(folder), folder.stat().st_ino)
        for training in trainings
        if training.evaluate and is_under_way(training, layout)
        for folder in whole_checkpoints(training.name, layout)
    ]


def describe_stop(training: TrainConfig, layout: Layout) -> str:
    """Where a training stands that nobody runs any more, and the last word of its log."""
    folder = layout.training(training.name)
    step = last_step(folder)
    stands = f"step {step} of {training.max_steps}" if step else "no checkpoint"
    log = folder / LOG
    word = last_error_line(log) if log.exists() else ""
    return f"{training.name} has {stands}" + (f" (its log ends: {word}; {log})" if word else "")
