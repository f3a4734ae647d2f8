"""The five stages in order: `python -m flows.full_pipeline --profile demo`.

The same through Prefect: `prefect deployment run full-pipeline/full-pipeline`.

A stage whose outputs stand is skipped. `--only evaluate,report` runs just those, `--from train`
leaves out what comes before, `--force` runs them although they are done, `--plan` says what would
run and why. By `evaluate.while_training` checkpoints are evaluated as they come, in a flow run
beside the training's; the stage `evaluate` then finds that done.
"""

import argparse
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import copy_context
from pathlib import Path
from typing import cast

from flows.command import Command, read_config, run_command
from flows.convert import convert_flow
from flows.evaluate import evaluate_flow
from flows.fetch import fetch_flow
from flows.pipeline_config import STAGES, Override, PipelineConfig, StageName, overridden
from flows.plan import print_plan, run_if_due
from flows.report import report_flow, show_report
from flows.train import train_flow
from storage.errors import PipelineError
from tasks.running.console import say
from tasks.running.turns import stop_event
from tasks.stage import run

STAGE_FLOWS = {
    "fetch": fetch_flow,
    "convert": convert_flow,
    "train": train_flow,
    "evaluate": evaluate_flow,
    "report": report_flow,
}
STOP_S = 15.0  # an evaluation that is told to stop ends its child sooner


def full_pipeline_flow(
    config: PipelineConfig,
    workspace: Path = Path("workspace"),
    overrides: tuple[Override, ...] = (),
    only: tuple[StageName, ...] = (),
    start_from: StageName = "fetch",
    force: bool = False,  # noqa: FBT001, FBT002  Prefect passes parameters by name
) -> None:
    """Run the stages whose outputs do not stand, in order.

    Args:
        config: The whole experiment.
        workspace: Folder of all data.
        overrides: Keys to change, as `--set` has them: `["evaluate.batch_size=30"]`.
        only: Run just these stages.
        start_from: Leave out the stages before this one.
        force: Run the stages although their outputs stand.
    """
    config = overridden(config, overrides, workspace=workspace)
    stages = chosen_stages(only, start_from)
    for number, stage in enumerate(stages, start=1):
        say(f"{number}/{len(stages)} {stage}")
        is_watched = stage == "train" and "evaluate" in stages and config.evaluate.while_training
        # Forced work is done once: by the stage itself.
        with _evaluating(config, workspace) if is_watched and not force else nullcontext():
            run(STAGE_FLOWS[stage], config, workspace, force=force)


@contextmanager
def _evaluating(config: PipelineConfig, workspace: Path) -> Generator[None]:
    """Evaluate checkpoints as they come while the block trains, and those that are left then.

    A failure of it is told and ends nothing: the stage `evaluate` tries again.
    """
    stop = threading.Event()

    def evaluate() -> None:
        stop_event.set(stop)
        try:
            run(evaluate_flow, config, workspace, watch=True)
        except PipelineError as error:
            say(f"evaluate: ended before the training: {error}")

    # In the flow's context as it is before the training: its run then lies beside, not below.
    thread = threading.Thread(target=copy_context().run, args=(evaluate,), daemon=True)
    thread.start()
    try:
        yield
        thread.join()
    except BaseException:
        stop.set()
        thread.join(STOP_S)
        raise


def chosen_stages(only: Sequence[StageName], start_from: StageName) -> list[StageName]:
    """The stages to go through, in their order."""
    later: list[StageName] = [
        stage for stage in STAGES[STAGES.index(start_from) :] if not only or stage in only
    ]
    if not later:
        msg = f"no stage is left: --only {','.join(only)} names none from {start_from} on"
        raise PipelineError(msg)
    return later


def stage_names(text: str) -> tuple[StageName, ...]:
    """Read `evaluate,report`.

    Raises:
        PipelineError: If a name is no stage.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in STAGES:
            msg = f"unknown stage {name}: expected some of {','.join(STAGES)}"
            raise PipelineError(msg)
    return cast("tuple[StageName, ...]", tuple(names))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = Command("full_pipeline", __doc__)
    parser.add_argument(
        "--only", default="", metavar="STAGES", help="comma-separated, e.g. evaluate,report"
    )
    parser.add_argument(
        "--from", dest="start_from", default="fetch", metavar="STAGE", help="first stage to run"
    )
    parser.add_argument("--plan", action="store_true", help="say what would run and why, and stop")
    options: argparse.Namespace = parser.parse_args(arguments)
    config, layout = read_config(options)
    only = stage_names(options.only)
    (start_from,) = stage_names(options.start_from) or ("fetch",)
    stages = chosen_stages(only, start_from)
    if options.plan:
        print_plan(config, layout, stages, force=options.force)
        return 0
    settings = {"only": only, "start_from": start_from}
    has_run = run_if_due(
        full_pipeline_flow, stages, config, layout, force=options.force, **settings
    )
    if not has_run and "report" in stages:
        show_report(config, layout)
    return 0


if __name__ == "__main__":
    run_command(main)
