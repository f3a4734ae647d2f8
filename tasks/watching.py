"""A training seen from another process: whether it runs, and what it has written so far.

Every run of an experiment's trainings holds a shared lock on one file, and so do its child
processes. The kernel takes it away when the last of them is gone, however that came about: a
training that was killed is told from one that takes its time.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager

from model.config import TrainConfig
from storage.layout import Layout, checkpoint_step, list_checkpoints
from storage.locks import is_locked, locked
from tasks.models import whole_checkpoints
from tasks.running.child_process import last_error_line
from tasks.running.turns import inherited
from tasks.train import is_under_way


@contextmanager
def marked_as_training(layout: Layout) -> Generator[None]:
    """Let others see that a training of this experiment runs; several may, beside each other."""
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
    steps = [checkpoint_step(path) for path in list_checkpoints(folder)]
    stands = f"step {steps[-1]} of {training.max_steps}" if steps else "no checkpoint"
    log = folder / "trainer.log"
    word = last_error_line(log) if log.exists() else ""
    return f"{training.name} has {stands}" + (f" (its log ends: {word}; {log})" if word else "")
