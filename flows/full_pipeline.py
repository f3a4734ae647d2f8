"""The five stages in order: `python -m flows.full_pipeline --profile demo`.

The same through Prefect: `prefect deployment run full-pipeline/full-pipeline`.

A stage whose outputs stand is skipped. `--only evaluate,report` runs just those, `--from train`
leaves out what comes before, `--force` runs them although they are done, `--plan` says what would
run and why. By `evaluate.while_training` checkpoints are evaluated as they come, in a flow run
beside the training's; the stage `evaluate` then finds that done.
"""

import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import copy_context
from typing import cast

from flows.command import Command, run_command, stage_flow
from flows.convert import convert_flow
from flows.evaluate import evaluate_flow
from flows.fetch import fetch_flow
from flows.pipeline_config import STAGES, PipelineConfig, StageName
from flows.plan import print_plan, run_if_due
from flows.report import report_flow, show_report
from flows.train import train_flow
from storage.errors import PipelineError
from storage.layout import Layout
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


@stage_flow(only="Run just these stages.", start_from="Leave out the stages before this one.")
def full_pipeline_flow(
    config: PipelineConfig,
    layout: Layout,
    *,
    force: bool,
    only: tuple[StageName, ...] = (),
    start_from: StageName = "fetch",
) -> None:
    """Run the stages whose outputs do not stand, in order."""
    stages = chosen_stages(only, start_from)
    for number, stage in enumerate(stages, start=1):
        say(f"{number}/{len(stages)} {stage}")
        is_watched = stage == "train" and "evaluate" in stages and config.evaluate.while_training
        # Forced work is done once: by the stage itself.
        with _evaluating(config, layout) if is_watched and not force else nullcontext():
            run(STAGE_FLOWS[stage], config, layout.workspace, force=force)


@contextmanager
def _evaluating(config: PipelineConfig, layout: Layout) -> Generator[None]:
    """Evaluate checkpoints as they come while the block trains, and those that are left then.

    A failure of it is told and ends nothing: the stage `evaluate` tries again.
    """
    stop = threading.Event()

    def evaluate() -> None:
        from prefect.exceptions import CancelledRun, CrashedRun  # noqa: PLC0415  who plans runs nothing

        stop_event.set(stop)
        try:
            run(evaluate_flow, config, layout.workspace, watch=True)
        except (PipelineError, CancelledRun, CrashedRun) as error:
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


def chosen_stages(only: Sequence[str], start_from: str) -> list[StageName]:
    """The stages to go through, in their order; a PipelineError if there are none such."""
    for name in (*only, start_from):
        if name not in STAGES:
            msg = f"unknown stage {name}: expected some of {','.join(STAGES)}"
            raise PipelineError(msg)
    later = STAGES[STAGES.index(cast("StageName", start_from)) :]
    chosen: list[StageName] = [stage for stage in later if not only or stage in only]
    if not chosen:
        msg = f"no stage is left: --only {','.join(only)} names none from {start_from} on"
        raise PipelineError(msg)
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = Command("full_pipeline", __doc__)
    parser.add_argument("--only", default="", metavar="STAGES", help="e.g. evaluate,report")
    parser.add_argument(
        "--from", dest="start_from", default="fetch", metavar="STAGE", help="first stage to run"
    )
    parser.add_argument("--plan", action="store_true", help="say what would run and why, and stop")
    options, config, layout = parser.read(arguments)
    only = tuple(name for part in options.only.split(",") if (name := part.strip()))
    stages = chosen_stages(only, options.start_from)
    if options.plan:
        print_plan(config, layout, stages, force=options.force)
        return
    chosen = {"only": only, "start_from": options.start_from}
    has_run = run_if_due(full_pipeline_flow, stages, config, layout, force=options.force, **chosen)
    if not has_run and "report" in stages:
        show_report(config, layout)


if __name__ == "__main__":
    run_command(main)
