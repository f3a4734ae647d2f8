"""Train: every training of the profile, in order, each in a child process."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

from flows.command import Command, read_config, run_command
from flows.pipeline_config import Override, PipelineConfig, overridden
from flows.plan import run_if_due
from flows.preflight import check_stage
from model.config import TrainConfig
from storage.errors import PipelineError
from storage.layout import Layout
from tasks.asked import profile_facts
from tasks.report import remade_meanwhile
from tasks.running.torchrun import join
from tasks.running.turns import turn
from tasks.stage import run, run_unit
from tasks.train import is_finished, marked_as_training, set_aside, train, train_unit


def train_flow(
    config: PipelineConfig,
    workspace: Path = Path("workspace"),
    overrides: tuple[Override, ...] = (),
    force: bool = False,  # noqa: FBT001, FBT002  Prefect passes parameters by name
) -> bool:
    """Train; a training that was killed goes on from its newest whole checkpoint.

    Args:
        config: The whole experiment.
        workspace: Folder of all data.
        overrides: Keys to change, as `--set` has them: `["evaluate.batch_size=30"]`.
        force: Train again, from the start, although the checkpoints stand.
    """
    config = overridden(config, overrides, workspace=workspace)
    layout = config.layout(workspace)
    check_host = cache(partial(check_stage, "train", config, layout))  # before the first
    has_run: list[bool] = []
    settings = config.model_dump(mode="json")
    facts = partial(profile_facts, config.train, config.evaluate, layout)
    with marked_as_training(layout), remade_meanwhile(settings, config.report, facts, layout):
        for training in config.train:  # one may start from another: its unit is known after it
            work = partial(_train, training, layout, check_host, anew=force)
            unit = f"train/{training.name}"
            with turn(unit, layout.lock(unit), config.when_busy):
                has_run.append(run_unit(train_unit(training, layout), work, force=force))
    return any(has_run)


def _train(
    training: TrainConfig, layout: Layout, check_host: Callable[[], None], *, anew: bool
) -> None:
    check_host()
    if anew and is_finished(training, layout):  # not in the task: a retry would do so again
        set_aside(layout.training(training.name))
    run(train, training, layout)


def join_all(config: PipelineConfig, layout: Layout, host_index: int, *, force: bool) -> None:
    """Take part in every training of several hosts, without Prefect: the first host's run tells.

    Raises:
        PipelineError: If there is none, or one has failed for good.
    """
    shared = [training for training in config.train if training.num_hosts > 1]
    if not shared:
        msg = "--join: no training of this profile runs on several hosts; --set train.num_hosts=2"
        raise PipelineError(msg)
    for training in shared:
        join(
            training.name,
            layout,
            host_index,
            is_done=lambda training=training: not force and is_finished(training, layout),
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = Command("train", __doc__)
    parser.add_argument(
        "--join", type=int, metavar="NUMBER", help="be host 1, 2, ... of a training on several"
    )
    options = parser.parse_args(arguments)
    config, layout = read_config(options)
    if options.join is not None:
        if options.join < 1:
            parser.error("--join counts the hosts besides the first from 1")
        join_all(config, layout, options.join, force=options.force)
        return 0
    run_if_due(train_flow, ["train"], config, layout, force=options.force)
    return 0


if __name__ == "__main__":
    run_command(main)
