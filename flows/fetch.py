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

from flows.command import Command, read_config, resume_command, run_command, run_flow
from flows.pipeline_config import Override, PipelineConfig, overridden
from flows.plan import run_if_due
from flows.preflight import check_fetch
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


def fetch_flow(
    config: PipelineConfig,
    workspace: Path = Path("workspace"),
    overrides: tuple[Override, ...] = (),
    force: bool = False,  # noqa: FBT001, FBT002  Prefect passes parameters by name
    deep: bool = False,  # noqa: FBT001, FBT002
) -> bool:
    """Fetch and trim the clips that are due.

    Args:
        config: The whole experiment.
        workspace: Folder of all data.
        overrides: Keys to change, as `--set` has them: `["evaluate.batch_size=30"]`.
        force: Write the account anew although nothing is due.
        deep: Also compare the sha256 of every wav with the ledger.
    """
    config = overridden(config, overrides, workspace=workspace)
    layout = config.layout(workspace)
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
        progress.start(plan)
        verdict = unit.verdict()
        if verdict.is_done and not plan.num_due and not force:
            say(f"fetch: skipped ({verdict.reason})")
            return False
        if plan.num_due:
            check_fetch(config, layout, [clip for batch in plan.batches for clip in batch])
        _announce(plan, len(annotations.clips))
        try:
            with (
                serve(World(layout.world), config.world.port) if config.world else nullcontext(),
                meter("fetch", plan.num_due) as progress.meter,
            ):
                _fetch_all(fetch, plan)
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


def _fetch_all(fetch: FetchRun, plan: Plan) -> None:
    first = 1
    for batch in plan.batches:
        if fetch.stop_event.is_set():
            return
        last = first + len(batch) - 1
        run(fetch_batch, fetch, batch, first, last)
        first = last + 1


class _Progress:
    """Counts outcomes as they come, from the worker threads."""

    def __init__(self) -> None:
        self.meter: Meter | None = None
        self.plan: Plan | None = None
        self._states: Counter[str] = Counter()
        self._lock = Lock()
        self._began_s = time.monotonic()

    def start(self, plan: Plan) -> None:
        """Count from here."""
        self.plan = plan
        self._began_s = time.monotonic()

    def note(self, row: ClipRow) -> None:
        """Take one clip's new row."""
        with self._lock:
            self._states[row.state] += 1
            counts = " ".join(f"{state} {count}" for state, count in self._states.most_common())
            per_hour = self._states.total() / (time.monotonic() - self._began_s) * 3600
            if self.meter is not None:
                note = f"{counts}, {per_hour:,.0f} an hour"
                self.meter.show(self._states.total(), note, eta_s=self._eta_s())

    def _eta_s(self) -> float | None:
        """Seconds left by the budget, not by the speed of the last minutes; None without one."""
        if self.plan is None or self.plan.eta_s is None:
            return None
        return (
            self.plan.eta_s * max(0, self.plan.num_due - self._states.total()) / self.plan.num_due
        )


def _announce(plan: Plan, num_wanted: int) -> None:
    eta = f", about {format_duration(plan.eta_s)} at the set pace" if plan.eta_s else ""
    say(f"fetch: {plan.num_due} of {num_wanted} clips are due{eta}")
    if plan.num_reopened:
        names = ", ".join(plan.reopened_by)
        say(f"fetch: {plan.num_reopened:,} losses may be served by the new source ({names})")


def _tell_pause(refusal: Failure, seconds: float) -> None:
    say(f"fetch: all workers pause for {format_duration(seconds)}: {refusal.message}")


def _tell(report: FetchReport, layout: Layout) -> None:
    reasons = ", ".join(f"{each.reason} {each.count}" for each in report.by_reason)
    lost = f"; not: {reasons}" if reasons else ""
    say(
        f"fetch: {report.num_usable} of {report.num_requested} clips usable{lost} -> {layout.fetch}"
    )
    if report.num_open:
        when = ""
        if report.next_try is not None:
            when = f", the first in {format_duration(max(0.0, report.next_try - time.time()))}"
        say(f"fetch: {report.num_open} clips may still come when fetch is run again{when}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = Command("fetch", __doc__)
    parser.add_argument("--retry", choices=RETRYABLE, help="try a class of clips again")
    parser.add_argument("--deep", action="store_true", help="compare the sha256 of every wav")
    parser.add_argument(
        "--merge", type=Path, metavar="LEDGER", help="join another host's ledger, and stop"
    )
    options = parser.parse_args(arguments)
    config, layout = read_config(options)
    if options.merge:
        return _merge(options.merge, layout)
    if options.retry:
        with Ledger(layout.ledger, clip_length_s=layout.clip_length_s) as ledger:
            say(
                f"fetch: {ledger.retry(options.retry)} clips of class {options.retry} are due again"
            )
    if options.deep:
        run_flow(fetch_flow, config, layout, force=options.force, deep=True)
    else:
        run_if_due(fetch_flow, ["fetch"], config, layout, force=options.force)
    return 0


def _merge(other: Path, layout: Layout) -> int:
    if not other.is_file():
        msg = f"--merge {other}: there is no such ledger"
        raise PipelineError(msg)
    with Ledger(layout.ledger, clip_length_s=layout.clip_length_s) as ledger:
        num_taken = ledger.merge(other)
    say(f"fetch: {num_taken} clips taken over from {other}; copy their wavs into {layout.clips}")
    return 0


if __name__ == "__main__":
    run_command(main)
