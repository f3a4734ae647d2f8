"""Convert: rows of every source of `data` become R1-AQA's JSON lines.

`--to-dataset DIR` writes them as a data set with their audio, for other trainers too.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from flows.command import Command, run_command, stage_flow
from flows.pipeline_config import PipelineConfig
from flows.plan import convert_settings, run_if_due
from storage.data.hub import write_dataset
from storage.layout import Layout
from tasks.convert import convert, convert_unit
from tasks.running.console import say
from tasks.running.turns import turn
from tasks.stage import run, run_unit


@stage_flow()
def convert_flow(config: PipelineConfig, layout: Layout, *, force: bool) -> bool:
    """Write train.jsonl, validation.jsonl and dropped.jsonl."""
    settings = convert_settings(config)
    work = partial(run, convert, settings, layout)
    with turn("convert", layout.lock("convert"), config.when_busy):
        return run_unit(convert_unit(settings, layout), work, force=force)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = Command("convert", __doc__)
    told = "also write them as a data set with audio"
    parser.add_argument("--to-dataset", type=Path, metavar="DIR", help=told)
    options, config, layout = parser.read(arguments)
    run_if_due(convert_flow, ["convert"], config, layout, force=options.force)
    if options.to_dataset:
        splits = {"train": layout.train_jsonl, "validation": layout.validation_jsonl}
        num_rows = write_dataset(splits, options.to_dataset)
        say(f"convert: {num_rows} rows with their audio -> {options.to_dataset}")


if __name__ == "__main__":
    run_command(main)
