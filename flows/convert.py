"""Convert: annotations and fetched clips become R1-AQA's JSON lines."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from prefect import flow

from flows.command import Command, read_config, run_command
from flows.pipeline_config import Override, PipelineConfig, overridden
from flows.plan import run_if_due
from tasks.convert import convert, convert_unit
from tasks.running.alive import alive
from tasks.running.turns import turn
from tasks.stage import expected_errors_fail, run, run_unit, stage_state


@flow(name="convert", flow_run_name="convert-{config.experiment}")
@alive
@expected_errors_fail
def convert_flow(
    config: PipelineConfig,
    workspace: Path = Path("workspace"),
    overrides: tuple[Override, ...] = (),
    force: bool = False,  # noqa: FBT001, FBT002  Prefect passes parameters by name
) -> object:
    """Write train.jsonl, validation.jsonl and dropped.jsonl.

    Args:
        config: The whole experiment.
        workspace: Folder of all data.
        overrides: Keys to change, as `--set` has them: `["evaluate.batch_size=30"]`.
        force: Run although the outputs stand.
    """
    config = overridden(config, overrides, workspace=workspace)
    layout = config.layout(workspace)
    settings = (config.annotations, config.convert, config.fetch, layout)
    work = partial(run, convert, *settings)
    with turn("convert", layout.lock("convert"), config.when_busy):
        return stage_state(has_run=run_unit(convert_unit(*settings), work, force=force))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = Command("convert", __doc__).parse_args(arguments)
    run_if_due(convert_flow, ["convert"], *read_config(options), force=options.force)
    return 0


if __name__ == "__main__":
    run_command(main)
