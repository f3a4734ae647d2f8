"""Train: every training of the profile, in order, each in a child process."""

from collections.abc import Sequence
from pathlib import Path

from prefect import flow

from flows.command import Command, read_config, run_command
from flows.pipeline_config import PipelineConfig
from flows.preflight import check_stage
from storage.layout import Layout
from tasks.outcome import expected_errors_fail, skipped, value_of
from tasks.progress import say
from tasks.train import set_aside, train, train_unit


@flow(name="train", flow_run_name="train-{config.experiment}")
@expected_errors_fail
def train_flow(
    config: PipelineConfig,
    workspace: Path = Path("workspace"),
    force: bool = False,  # noqa: FBT001, FBT002  Prefect passes parameters by name
) -> object:
    """Train; a training that was killed goes on from its newest whole checkpoint.

    Args:
        config: The whole experiment.
        workspace: Folder of all data.
        force: Train again, from the start, although the checkpoints stand.
    """
    layout = Layout(workspace.absolute(), config.experiment)
    num_run = 0
    for training in config.train:
        unit = train_unit(training, layout)
        verdict = unit.verdict()
        if verdict.is_done and not force:
            say(f"train {training.name}: skipped ({verdict.reason})")
            continue
        if not num_run:
            check_stage("train", config, layout)
        if verdict.is_done:  # forced; not in the task, whose retry would set aside its own progress
            set_aside(layout.training(training.name))
        value_of(train(training, layout, return_state=True))
        unit.commit()
        num_run += 1
    return None if num_run else skipped(f"{len(config.train)} training(s) done before, unchanged")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = Command("train", __doc__).parse_args(arguments)
    config, layout = read_config(options)
    value_of(train_flow(config, layout.workspace, force=options.force, return_state=True))
    return 0


if __name__ == "__main__":
    run_command(main)
