"""Convert: annotations and fetched clips become R1-AQA's JSON lines."""

from collections.abc import Sequence
from pathlib import Path

from prefect import flow

from flows.command import Command, read_config, run_command, run_flow
from flows.pipeline_config import PipelineConfig
from tasks.convert import convert, convert_unit
from tasks.outcome import expected_errors_fail, skipped, value_of
from tasks.running.alive import alive
from tasks.running.console import say


@flow(name="convert", flow_run_name="convert-{config.experiment}")
@alive
@expected_errors_fail
def convert_flow(
    config: PipelineConfig,
    workspace: Path = Path("workspace"),
    force: bool = False,  # noqa: FBT001, FBT002  Prefect passes parameters by name
) -> object:
    """Write train.jsonl, validation.jsonl and dropped.jsonl.

    Args:
        config: The whole experiment.
        workspace: Folder of all data.
        force: Run although the outputs stand.
    """
    layout = config.layout(workspace)
    unit = convert_unit(config.annotations, config.convert, config.fetch, layout)
    verdict = unit.verdict()
    if verdict.is_done and not force:
        return skipped(verdict.reason)
    counts = value_of(
        convert(
            config.annotations,
            config.convert,
            config.fetch,
            layout,
            return_state=True,
        )
    )
    unit.commit()
    say(f"convert: {counts.summary} -> {layout.train_jsonl}")
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = Command("convert", __doc__).parse_args(arguments)
    config, layout = read_config(options)
    run_flow(convert_flow, config, layout, force=options.force)
    return 0


if __name__ == "__main__":
    run_command(main)
