"""Report: one report.json from all that was measured, and the site rendered from it."""

import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from reports.config import ReportConfig
from reports.numbers import leaderboard
from reports.read import audio_roots, read_report
from reports.report import Report
from reports.sheets import Provenance
from reports.site.terminal import print_table
from storage import manifest
from storage.config import Config, deciding
from storage.errors import PipelineError
from storage.layout import Layout
from storage.locks import locked
from storage.records.evaluation import list_runs
from storage.records.leading import ProfileFacts
from storage.records.training import METRICS
from tasks.running.console import say
from tasks.stage import Unit, task

SHOWN_VERSIONS = (
    *("torch", "transformers", "prefect", "yt-dlp", "numpy"),
    *("soundfile", "soxr", "peft", "accelerate"),
)
REPOSITORY = Path(__file__).parent.parent


def report_unit(
    experiment: Config, config: ReportConfig, facts: ProfileFacts, layout: Layout
) -> Unit:
    """What decides the site: manifests, settings, what the profile asks and of whom."""
    manifests = sorted((layout.root / "manifests").glob("*.json"))
    records = {path.name: manifest.read(path) for path in manifests if path.name != "report.json"}
    rows = config.rows
    return Unit(
        name="report",
        layout=layout,
        parts={
            "measurements": {name: record.digest for name, record in records.items() if record},
            "settings": deciding(experiment),
            "benchmarks": facts.benchmarks,
            "models": sorted(facts.models),
            "form of the report": Report.model_json_schema(),
            "further rows": manifest.file_digest(rows) if rows and rows.exists() else None,
        },
        outputs=(layout.site,),
    )


@task("report")
def report(
    experiment: Mapping[str, object], config: ReportConfig, facts: ProfileFacts, layout: Layout
) -> None:
    """Read, render, and put leaderboard and link on Prefect's pages."""
    from prefect import artifacts  # noqa: PLC0415  who plans runs nothing

    from reports.site import exports  # noqa: PLC0415  brings Jinja, which who plans never needs
    from tasks.running.alive import await_server  # noqa: PLC0415  who plans runs nothing

    found = _make(experiment, config, facts, layout)
    rows = [row for row in leaderboard.rows(found) if row.is_quoted]
    table = [
        {
            "benchmark": row.benchmark,
            "model": row.model,
            "method": row.method,
            "scorer": row.scorer,
            **{name: exports.score_text(score) for name, score in row.tasks.items()},
            "average": exports.score_text(row.average),
        }
        for row in rows
    ]
    about = f"Experiment {layout.experiment}."
    link = f"{config.url.rstrip('/')}/{layout.experiment}/index.html"
    await_server()
    artifacts.create_table_artifact(table, key="leaderboard", description=about)
    artifacts.create_markdown_artifact(exports.to_markdown(rows), key="leaderboard-markdown")
    artifacts.create_link_artifact(link, key="report")


def _make(
    experiment: Mapping[str, object],
    config: ReportConfig,
    facts: ProfileFacts | None,
    layout: Layout,
    *,
    while_training: bool = False,
) -> Report:
    from reports.site import render  # noqa: PLC0415  brings pyarrow, which the other stages never need

    found = read_report(
        layout,
        config,
        settings=experiment,
        provenance=Provenance(
            command=shlex.join(sys.orig_argv[1:]),
            workspace=str(layout.workspace),
            commit=_git("rev-parse", "HEAD"),
            uncommitted_changes=bool(_git("status", "--porcelain")),
            python=sys.version.split()[0],
            versions={name: version(name) for name in SHOWN_VERSIONS},
        ),
        facts=facts,
        while_training=while_training,
    )
    roots = audio_roots(layout, experiment, found.benchmarks)
    render.render(found, layout.site, audio_roots=roots)
    return found


@contextmanager
def remade_meanwhile(
    experiment: Mapping[str, object],
    config: ReportConfig,
    find_facts: Callable[[], ProfileFacts],
    layout: Layout,
) -> Generator[None]:
    """Make the pages again while the block runs, as trainings log; in a thread of its own."""
    is_over = threading.Event()

    def remake() -> None:
        told = ""
        while not is_over.wait(config.remake_s):
            if not _is_behind(layout, config.remake_s):
                continue
            try:
                with locked(layout.lock("report"), "report") as lock:
                    if lock is not None:
                        facts = find_facts() if list_runs(layout.evaluations) else None
                        _make(experiment, config, facts, layout, while_training=True)
            except (PipelineError, OSError) as error:  # what it reads may be replaced meanwhile
                if str(error) != told:
                    told = str(error)
                    say(f"report: the pages were not made again: {error}")

    if not config.remake_s:
        yield
        return
    thread = threading.Thread(target=remake, name="report", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _is_behind(layout: Layout, seconds: float) -> bool:
    """Whether a training has logged so long after the pages were made, or there are none."""
    made = layout.site / "report.json"
    logs = layout.root.glob(f"training/*/{METRICS}")
    logged_s = max((log.stat().st_mtime for log in logs), default=0.0)
    return logged_s > 0 and (not made.exists() or logged_s - made.stat().st_mtime >= seconds)


def print_leaderboard(layout: Layout) -> None:
    """Show the leaderboard in the terminal, and what is to be submitted for a score."""
    found = Report.read(layout.site / "report.json")
    rows = leaderboard.rows(found)
    print_table(rows)
    for prompt in {row.asked.sha256: row.asked for row in rows if row.asked}.values():
        say(f"prompt {prompt.name} (sha256 {prompt.sha256[:8]}): {prompt.text!r}")
    for evaluation in found.withheld:
        name = f"{evaluation.run.benchmark_name}, {evaluation.model}, prompt {evaluation.prompt}"
        file = layout.root / evaluation.submission_file
        say(f"{name}: answers withheld, no score; submit {file}")


def _git(*arguments: str) -> str:
    """What git says of this checkout; empty outside one or where git is not installed."""
    command = ["git", "-C", str(REPOSITORY), *arguments]
    with suppress(FileNotFoundError):
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        return found.stdout.strip()
    return ""
