"""Fetch: clips in batches, each a task; the ledger, not Prefect, is the truth about each clip."""

from collections.abc import Sequence

from storage import manifest
from storage.config import FetchConfig, deciding
from storage.fetch.account import FetchReport
from storage.fetch.ledger import Ledger
from storage.fetch.reconcile import Due, list_due
from storage.fetch.run import FetchRun, open_sources
from storage.layout import Layout
from storage.records.clip import Clip
from tasks.inputs import AnnotationFiles
from tasks.stage import Unit, task


def fetch_unit(annotations: AnnotationFiles, config: FetchConfig, layout: Layout) -> Unit:
    """What decides which clips are wanted, and the account of them."""
    return Unit(
        name="fetch",
        layout=layout,
        parts={
            "clips": manifest.digest_of([clip.clip_id for clip in annotations.clips]),
            "settings": deciding(config),
        },
        outputs=tuple(
            layout.fetch / name
            for name in ("fetch_report.json", "invalid.jsonl", "clips.csv", "videos.csv")
        ),
    )


def due_clips(annotations: AnnotationFiles, config: FetchConfig, layout: Layout) -> Due:
    """What a fetch would look at now; changes nothing and asks nobody."""
    if not layout.ledger.exists():
        return Due(annotations.clips)
    with Ledger(layout.ledger, clip_length_s=layout.clip_length_s) as ledger:
        sources = open_sources(config, layout)
        return list_due(
            ledger, annotations.clips, layout.clips, sources, drop_silent=config.drop_silent
        )


@task("fetch-batch-{number}")
def fetch_batch(run: FetchRun, batch: Sequence[Clip], number: int) -> None:  # noqa: ARG001  it names the run
    """Fetch and trim a batch; each clip ends in the ledger as done, or with the reason why not.

    Network errors are recorded with the time of the next try; a full disk or a missing ffmpeg ends
    the stage. No retries of Prefect's: the ledger knows what to try again and when.
    """
    run.fetch_batch(batch)


def show_account(report: FetchReport) -> None:
    """Put the table of reasons on Prefect's pages."""
    from prefect.artifacts import create_table_artifact  # noqa: PLC0415  who plans runs nothing

    rows = [{"clips": report.num_usable, "state": "done", "reason": ""}]
    rows += [
        {"clips": count, "state": state, "reason": reason}
        for (state, reason), count in report.by_reason.items()
    ]
    create_table_artifact(
        rows,
        key="fetch-account",
        description=f"{report.num_requested} clips asked for, {report.num_usable} usable.",
    )
