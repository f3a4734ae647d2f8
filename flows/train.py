"""Train: every training of the profile, in order, each in a child process."""

from collections.abc import Callable, Sequence
from functools import cache, partial

from flows.command import Command, run_command, stage_flow
from flows.pipeline_config import PipelineConfig
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


@stage_flow()
def train_flow(config: PipelineConfig, layout: Layout, *, force: bool) -> bool:
    """Train; a training that was killed goes on from its newest whole checkpoint.

    Forced, it trains from the start; what was there is kept.
    """
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


def _join_all(config: PipelineConfig, layout: Layout, host_index: int, *, force: bool) -> None:
    """Take part in every training of several hosts, without Prefect: the first host's run tells."""
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


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = Command("train", __doc__)
    parser.add_argument("--join", type=int, metavar="NUMBER", help="be host 1, 2, ... of several")
    options, config, layout = parser.read(arguments)
    if options.join is None:
        run_if_due(train_flow, ["train"], config, layout, force=options.force)
    elif options.join < 1:
        parser.error("--join counts the hosts besides the first from 1")
    else:
        _join_all(config, layout, options.join, force=options.force)


if __name__ == "__main__":
    run_command(main)
