"""Report: tables, charts and pages from everything that was measured."""

import json
from collections.abc import Sequence
from pathlib import Path

from prefect import flow

from flows.command import Command, read_config, run_command, run_flow
from flows.expectations import check_expectations
from flows.pipeline_config import PipelineConfig
from tasks.outcome import expected_errors_fail, skipped, value_of
from tasks.report import print_leaderboard, report, report_unit
from tasks.running.alive import alive
from tasks.running.console import say


@flow(name="report", flow_run_name="report-{config.experiment}")
@alive
@expected_errors_fail
def report_flow(
    config: PipelineConfig,
    workspace: Path = Path("workspace"),
    force: bool = False,  # noqa: FBT001, FBT002  Prefect passes parameters by name
) -> object:
    """Render the site and the exports, and hold the result against the profile's bounds.

    Args:
        config: The whole experiment.
        workspace: Folder of all data.
        force: Render although nothing has changed.
    """
    layout = config.layout(workspace)
    experiment = json.loads(config.model_dump_json())
    unit = report_unit(experiment, config.report, layout)
    verdict = unit.verdict()
    is_skipped = verdict.is_done and not force
    if not is_skipped:
        value_of(report(experiment, config.report, layout, return_state=True))
        unit.commit()
    print_leaderboard(layout)
    check_expectations(config, layout)
    say(f"report: {layout.site / 'index.html'}")
    return skipped(verdict.reason) if is_skipped else None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = Command("report", __doc__).parse_args(arguments)
    config, layout = read_config(options)
    run_flow(report_flow, config, layout, force=options.force)
    return 0


if __name__ == "__main__":
    run_command(main)
