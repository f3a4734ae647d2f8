"""Evaluate: every checkpoint, and what it started from, on every benchmark of the profile."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from prefect import flow

from flows.command import Command, read_config, run_command
from flows.pipeline_config import PipelineConfig
from storage.errors import PipelineError
from storage.gpus import list_gpus
from storage.layout import Layout
from tasks.benchmarks import prepare_benchmarks
from tasks.child_process import stopping_children
from tasks.evaluate import (
    Job,
    answer,
    asked_models,
    check_declared_step,
    evaluate_unit,
    jobs_of,
    write_control_reports,
)
from tasks.outcome import expected_errors_fail, skipped, value_of
from tasks.progress import say
from tasks.train import train_unit
from tasks.world import make_world

WATCH_EVERY_S = 20.0  # a checkpoint of the 7B comes every quarter of an hour


@flow(name="evaluate", flow_run_name="evaluate-{config.experiment}")
@expected_errors_fail
def evaluate_flow(
    config: PipelineConfig,
    workspace: Path = Path("workspace"),
    force: bool = False,  # noqa: FBT001, FBT002  Prefect passes parameters by name
    watch: bool = False,  # noqa: FBT001, FBT002
) -> object:
    """Answer and score what has not been answered; one child process a GPU.

    Args:
        config: The whole experiment.
        workspace: Folder of all data.
        force: Answer again although the answers stand.
        watch: Take up new checkpoints as a running training writes them, until it ends.
    """
    layout = Layout(workspace.absolute(), config.experiment)
    make_world(config.world, layout)
    check_declared_step(config.evaluate, config.train)
    while watch and not _all_trained(config, layout):
        _evaluate(config, layout, so_far=True)
        time.sleep(WATCH_EVERY_S)
    num_run, num_jobs = _evaluate(config, layout, force=force)
    return None if num_run else skipped(f"{num_jobs} run(s) done before, unchanged")


def _evaluate(
    config: PipelineConfig, layout: Layout, *, force: bool = False, so_far: bool = False
) -> tuple[int, int]:
    """Run what is due; returns how many runs that were, and how many there are."""
    asked = asked_models(config.train, config.evaluate, layout, so_far=so_far)
    jobs = jobs_of(asked, prepare_benchmarks(config.evaluate, layout), config.evaluate)
    todo = [
        job
        for job in jobs
        if force or not evaluate_unit(job, config.evaluate, layout).verdict().is_done
    ]
    if todo:
        say(f"evaluate: {len(todo)} of {len(jobs)} runs of a model on a benchmark")
        if force:
            for job in todo:
                (job.folder(layout) / "answers.jsonl").unlink(missing_ok=True)
        _answer_all(todo, config, layout)
        write_control_reports(jobs, config.train, config.evaluate, layout)
    return len(todo), len(jobs)


def _all_trained(config: PipelineConfig, layout: Layout) -> bool:
    try:
        return all(train_unit(training, layout).verdict().is_done for training in config.train)
    except PipelineError:  # an earlier training, or the examples, are still to come
        return False


def _answer_all(jobs: list[Job], config: PipelineConfig, layout: Layout) -> None:
    parts = _split(jobs, max(1, len(list_gpus(os.environ.get("CUDA_VISIBLE_DEVICES")))))
    if len(parts) == 1:
        value_of(answer(jobs, config.evaluate, layout, 0, return_state=True))
        return
    with stopping_children():
        futures = [
            answer.submit(part, config.evaluate, layout, number)  # pyright: ignore[reportUnknownMemberType]  its overloads are partly untyped
            for number, part in enumerate(parts)
        ]
        for future in futures:
            future.result()


def _split(jobs: list[Job], num_parts: int) -> list[list[Job]]:
    """Share the jobs out by model, so that each model is loaded once."""
    models = list(dict.fromkeys(job.asked.model.key for job in jobs))
    parts = [
        [job for job in jobs if job.asked.model.key in models[number::num_parts]]
        for number in range(num_parts)
    ]
    return [part for part in parts if part]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = Command("evaluate", __doc__)
    parser.add_argument(
        "--watch", action="store_true", help="take up a running training's checkpoints as they come"
    )
    options = parser.parse_args(arguments)
    config, layout = read_config(options)
    state = evaluate_flow(
        config, layout.workspace, force=options.force, watch=options.watch, return_state=True
    )
    value_of(state)
    if state.name == "Skipped":
        say(f"evaluate: skipped ({state.message})")
    return 0


if __name__ == "__main__":
    run_command(main)
