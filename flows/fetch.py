"""Fetch: audio of every annotated clip, with an account of what is gone.

Stopped at any moment, it goes on where it was. Exit code 75: YouTube refuses this address for now;
the message says how to go on. `--retry geo` (or invalid, unconfirmed, credentials) tries a class of
clips again; `--deep` reads every wav and compares its sha256; `--merge LEDGER` joins the ledger of
another host.
"""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from threading import Lock

from flows.command import Command, resume_command, run_command, run_flow, stage_flow
from flows.pipeline_config import PipelineConfig
from flows.plan import run_if_due
from flows.preflight import check_stage
from storage.errors import PipelineError
from storage.fetch.account import FetchReport, write_account
from storage.fetch.failures import Failure
from storage.fetch.ledger import ClipRow, Ledger
from storage.fetch.run import FetchRun, Plan
from storage.layout import Layout
from storage.world.make import World, serve
from tasks.fetch import fetch_batch, fetch_unit, show_account
from tasks.inputs import make_world, read_annotations
from tasks.running.console import Meter, format_duration, meter, say
from tasks.running.turns import turn
from tasks.stage import run

RETRYABLE = ("geo", "invalid", "unconfirmed", "credentials", "retry")


@stage_flow(deep="Also compare the sha256 of every wav with the ledger.")
def fetch_flow(config: PipelineConfig, layout: Layout, *, force: bool, deep: bool = False) -> bool:
    """Fetch and trim the clips that are due."""
    make_world(config.world, layout)
    # Of the workspace: its clips and their ledger are shared.
    with turn("fetch", layout.locks / "fetch.lock", config.when_busy):
        return _fetch_due(config, layout, force=force, deep=deep)


def _fetch_due(config: PipelineConfig, layout: Layout, *, force: bool, deep: bool) -> bool:
    """Fetch what is due and account for it; tells whether there was anything to do."""
    if not config.avqa:
        say("fetch: skipped (no source of `data` is AVQA)")
        return False
    annotations = read_annotations(config.avqa, layout, config.fetch.limit)
    unit = fetch_unit(annotations, config.fetch, layout)
    progress = _Progress()
    fetch = FetchRun(
        config.fetch,
        layout,
        resume_command=resume_command(config, layout.workspace),
        rows=annotations.rows,
        on_clip=progress.note,
        on_pause=_tell_pause,
    )
    with fetch:
        plan = fetch.plan(annotations.clips, deep=deep)
        verdict = unit.verdict()
        if verdict.is_done and not plan.num_due and not force:
            say(f"fetch: skipped ({verdict.reason})")
            return False
        if plan.num_due:
            check_stage("fetch", config, layout, [clip for batch in plan.batches for clip in batch])
        _announce(plan, len(annotations.clips))
        try:
            with (
                serve(World(layout.world), config.world.port) if config.world else nullcontext(),
                meter("fetch", plan.num_due) as shown,
            ):
                progress.start(plan, shown)
                for number, batch in enumerate(plan.batches, start=1):
                    if not fetch.stop_event.is_set():
                        run(fetch_batch, fetch, batch, number)
        finally:
            report = write_account(
                fetch.ledger,
                annotations.clips,
                layout.fetch,
                versions=fetch.versions,
                videos_per_hour=config.fetch.videos_per_hour,
                laid_out=fetch.laid_out,
            )
    show_account(report)
    unit.commit()
    _tell(report, layout)
    return True


class _Progress:
    """Counts outcomes as they come, from the worker threads."""

    def __init__(self) -> None:
        self._states: Counter[str] = Counter()
        self._lock = Lock()

    def start(self, plan: Plan, shown: Meter) -> None:
        """Count from here."""
        self._plan, self._meter, self._began_s = plan, shown, time.monotonic()

    def note(self, row: ClipRow) -> None:
        """Take one clip's new row; the time left is by the budget, not by the last minutes."""
        with self._lock:
            self._states[row.state] += 1
            num_done, plan = self._states.total(), self._plan
            counts = " ".join(f"{state} {count}" for state, count in self._states.most_common())
            per_hour = num_done / (time.monotonic() - self._began_s) * 3600
            left = max(0, plan.num_due - num_done) / plan.num_due
            eta_s = None if plan.eta_s is None else plan.eta_s * left
            self._meter.show(num_done, f"{counts}, {per_hour:,.0f} an hour", eta_s=eta_s)


def _announce(plan: Plan, num_wanted: int) -> None:
    eta = f", about {format_duration(plan.eta_s)} at the set pace" if plan.eta_s else ""
    say(f"fetch: {plan.num_due} of {num_wanted} clips are due{eta}")
    if plan.num_reopened:
        names = ", ".join(plan.reopened_by)
        say(f"fetch: {plan.num_reopened:,} losses may be served by the new source ({names})")


def _tell_pause(refusal: Failure, seconds: float) -> None:
    say(f"fetch: all workers pause for {format_duration(seconds)}: {refusal.message}")


def _tell(report: FetchReport, layout: Layout) -> None:
    reasons = ", ".join(f"{reason} {count}" for (_, reason), count in report.by_reason.items())
    usable = f"{report.num_usable} of {report.num_requested} clips usable"
    say(f"fetch: {usable}{f'; not: {reasons}' if reasons else ''} -> {layout.fetch}")
    if report.num_open:
        when = ""
        if report.next_try is not None:
            when = f", the first in {format_duration(max(0.0, report.next_try - time.time()))}"
        say(f"fetch: {report.num_open} clips may still come when fetch is run again{when}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = Command("fetch", __doc__)
    parser.add_argument("--retry", choices=RETRYABLE, help="try a class of clips again")
    parser.add_argument("--deep", action="store_true", help="compare the sha256 of every wav")
    parser.add_argument("--merge", type=Path, metavar="LEDGER", help="join another host's ledger")
    options, config, layout = parser.read(arguments)
    if options.merge and not options.merge.is_file():
        msg = f"--merge {options.merge}: there is no such ledger"
        raise PipelineError(msg)
    if options.merge or options.retry:
        with Ledger(layout.ledger, clip_length_s=layout.clip_length_s) as ledger:
            if options.merge:
                there = f"from {options.merge}; copy their wavs into {layout.clips}"
                say(f"fetch: {ledger.merge(options.merge)} clips taken over {there}")
                return
            num_due = ledger.retry(options.retry)
            say(f"fetch: {num_due} clips of class {options.retry} are due again")
    if options.deep:
        run_flow(fetch_flow, config, layout, force=options.force, deep=True)
    else:
        run_if_due(fetch_flow, ["fetch"], config, layout, force=options.force)


if __name__ == "__main__":
    run_command(main)
