"""Evaluate: every checkpoint, and what it started from, on every benchmark of the profile."""

import time
from collections.abc import Sequence

from flows.command import Command, run_command, run_flow, stage_flow
from flows.pipeline_config import PipelineConfig
from flows.plan import run_if_due
from flows.preflight import check_stage
from storage.errors import PipelineError
from storage.host.gpus import visible_gpus
from storage.layout import Layout
from tasks.asked import Job, check_declared_step, control_jobs_of, evaluate_unit, jobs_of
from tasks.evaluate import answer, describe_score, write_control_reports
from tasks.inputs import make_world
from tasks.running.child_process import stopping_children
from tasks.running.console import say
from tasks.running.gpus import is_any_free
from tasks.running.turns import pause, turn
from tasks.stage import run
from tasks.train import describe_stop, is_finished, is_training, seen_so_far

WATCH_EVERY_S = 5.0  # a checkpoint of the 7B comes every quarter of an hour, of a small one sooner
START_WAIT_S = 180.0  # two commands typed one after the other; a cold, busy laptop starts in 60


@stage_flow(
    watch="Take up new checkpoints as a running training writes them, until it ends; fails when it "
    "ends before its last step, after evaluating what there is."
)
def evaluate_flow(
    config: PipelineConfig, layout: Layout, *, force: bool, watch: bool = False
) -> bool:
    """Answer and score what has not been answered; one child process a GPU."""
    make_world(config.world, layout)
    check_declared_step(config.evaluate, config.train)
    has_watched = watch and _watch(config, layout, force=force)
    return _evaluate(config, layout, force=force and not watch) or has_watched


def _watch(config: PipelineConfig, layout: Layout, *, force: bool) -> bool:
    """Evaluate checkpoints as they come, until every training is finished; tells whether any was.

    It fails where no training runs (any more), and one has not been finished.
    """
    seen: list[tuple[str, int]] | None = None
    has_evaluated, has_run, told = False, False, ""
    give_up_s = time.monotonic() + START_WAIT_S
    while True:
        is_running = is_training(layout)  # before looking: what it writes last is seen below
        has_run = has_run or is_running
        found = seen_so_far(config.train, layout)
        # Who waits in line for a GPU takes it between two trainings, or before a training's retry.
        if found != seen and (not is_running or is_any_free()):
            is_first = seen is None
            has_evaluated |= _evaluate(config, layout, force=force and is_first, so_far=True)
            seen = found
            continue
        if is_running:
            waited_for = "its checkpoints" if found == seen else "a free GPU"
            state = f"the training runs; waiting for {waited_for}"
        else:
            unfinished = [each for each in config.train if not is_finished(each, layout)]
            if not unfinished:
                say("evaluate: every training is finished")
                return has_evaluated
            if has_run or time.monotonic() > give_up_s:
                no_more = "no training runs any more" if has_run else "no training runs"
                msg = (
                    f"{no_more}: {describe_stop(unfinished[0], layout)}. What it has written is "
                    "evaluated; `python -m flows.train` goes on with it"
                )
                raise PipelineError(msg)
            state = f"the training is still to start; waiting {START_WAIT_S / 60:.0f} min for it"
        if state != told:
            told = state
            say(f"evaluate: {state}")
        pause(WATCH_EVERY_S, state)


def _evaluate(config: PipelineConfig, layout: Layout, *, force: bool, so_far: bool = False) -> bool:
    """Run what is due, and say what cannot be; tells whether something was."""
    with turn("evaluate", layout.lock("evaluate"), config.when_busy):
        jobs = jobs_of(config.train, config.evaluate, layout, so_far=so_far)
        if so_far:  # which step leads is known when a training's steps are all evaluated
            return _run_due(jobs, config, layout, force=force, so_far=True)
        # Who is no checkpoint has his controls whatever the scores: a clip is read once for all.
        others = [job for job in jobs if job.asked.role != "checkpoint"]
        known = control_jobs_of(others, config.train, config.evaluate, layout)
        has_run = _run_due([*jobs, *known], config, layout, force=force, so_far=False)
        controls = control_jobs_of(jobs, config.train, config.evaluate, layout)
        led = [job for job in controls if job.asked.role == "checkpoint"]
        has_run |= _run_due(led, config, layout, force=force, so_far=False)
        if has_run and controls:
            write_control_reports([*jobs, *controls], config.train, config.evaluate, layout)
    if not has_run:
        say(f"evaluate: skipped ({len(jobs) + len(controls)} run(s) done before, unchanged)")
    return has_run


def _run_due(
    jobs: Sequence[Job], config: PipelineConfig, layout: Layout, *, force: bool, so_far: bool
) -> bool:
    todo: list[Job] = []
    for job in jobs:
        unit = evaluate_unit(job, config.evaluate, layout)
        verdict = unit.verdict(force=force)
        todo += [] if verdict.is_done else [job]
        if verdict.reason == unit.impossible:
            say(f"{unit.name}: {verdict.reason}; `python -m flows.train --force` trains anew")
    if not todo:
        return False
    check_stage("evaluate", config, layout)
    models = dict.fromkeys(job.asked.model.key for job in todo)
    due = ", ".join(models) if so_far else "a model on a benchmark"
    say(f"evaluate: {len(todo)} of {len(jobs)} runs of {due}")
    if force:
        for job in todo:
            (job.folder(layout) / "answers.jsonl").unlink(missing_ok=True)
        asked = config.evaluate.model_copy(update={"reuse": False})
        config = config.model_copy(update={"evaluate": asked})
    _answer_all(todo, config, layout)
    for job in todo if so_far else ():
        say(f"  {describe_score(job, layout)}")
    return True


def _answer_all(jobs: list[Job], config: PipelineConfig, layout: Layout) -> None:
    parts = _split(jobs, max(1, len(visible_gpus())))
    if len(parts) == 1:
        run(answer, jobs, config.evaluate, layout, 0)
        return
    from tasks.running.prefect_form import as_task  # noqa: PLC0415  who plans runs nothing

    with stopping_children():
        futures = [
            as_task(answer).submit(part, config.evaluate, layout, number)  # pyright: ignore[reportUnknownMemberType]  its overloads are partly untyped
            for number, part in enumerate(parts)
        ]
        for future in futures:
            future.result()


def _split(jobs: list[Job], num_parts: int) -> list[list[Job]]:
    """Share the jobs out by model, so that each model is loaded once; endpoints have their own."""
    place_of = {job: (job.asked.endpoint is not None, job.asked.model.key) for job in jobs}
    places = dict.fromkeys(place_of.values())
    here = [place for place in places if not place[0]]
    shares = [here[number::num_parts] for number in range(num_parts)]
    shares += [[place] for place in places if place[0]]
    parts = [[job for job in jobs if place_of[job] in share] for share in shares]
    return [part for part in parts if part]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = Command("evaluate", __doc__)
    parser.add_argument("--watch", action="store_true", help="take checkpoints up as they come")
    options, config, layout = parser.read(arguments)
    if options.watch:
        run_flow(evaluate_flow, config, layout, force=options.force, watch=True)
    else:
        run_if_due(evaluate_flow, ["evaluate"], config, layout, force=options.force)


if __name__ == "__main__":
    run_command(main)
