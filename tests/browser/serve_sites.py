"""Renders four sites for the browser tests and serves them until its input closes.

`whole` has everything, audio included; `hostile` has text in every field that tries to leave its
place; `large` has ten checkpoints of 1,000 questions, `huge` 40 of 10,000. A second server shows
`whole` and `large` as the reports of a workspace. Run from the repository's root:
`python -m tests.browser.serve_sites`; prints one JSON line with folder and addresses.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.hostile_text import PAYLOADS, poisoned
from benchmarks.synthetic_experiment import (
    withhold_answers,
    write_experiment,
    write_published_rows,
)
from reports.config import ReportConfig
from reports.read import read_report
from reports.report import Report, clean
from reports.server import find_report, serve
from reports.sheets import Provenance
from reports.site.render import render

HOSTILE = "".join(payload for payload in PAYLOADS if len(payload) < 1000)


def write_site(
    folder: Path, name: str, *, payload: str = "", withheld: str = "", **size: Any
) -> None:
    """Render one site to `<folder>/<name>`."""
    layout, profile = write_experiment(folder / "workspaces" / name, **size)
    if withheld:
        withhold_answers(layout, withheld)
    rows = folder / "rows.csv"
    write_published_rows(rows, "demo-mmau")
    provenance = Provenance(commit="0123abc", command="python -m flows.full_pipeline")
    report = read_report(layout, ReportConfig(rows=rows), settings=profile, provenance=provenance)
    roots = {each.key: layout.benchmark(each.key) / "audio" for each in report.benchmarks}
    if payload:
        hostile = clean(poisoned(report.model_dump(mode="json"), payload))
        report = Report.model_validate(hostile)
    render(report, folder / name, audio_roots=roots)


def main() -> None:
    """Write, serve, wait."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_site(
            folder,
            "whole",
            num_questions=90,
            benchmarks=("demo-mmau", "mmau-test-mini-original", "mmau-test"),
            withheld="mmau-test",
            trainings=("grpo", "sft"),
            with_audio=True,
            with_controls=True,
        )
        (folder / "clips").symlink_to(folder / "workspaces" / "whole" / "clips")
        write_site(folder, "hostile", payload=HOSTILE, num_questions=4, with_curves=False)
        write_site(
            folder,
            "large",
            num_questions=1000,
            steps=range(100, 1001, 100),
            benchmarks=("mmau-test-mini-original",),
            num_thoughts=2,
        )
        write_site(
            folder,
            "huge",
            num_questions=10_000,
            steps=range(25, 1001, 25),
            benchmarks=("mmau-test-original",),
            with_curves=False,
        )
        for experiment, site in (("first", "whole"), ("second", "large")):
            (folder / "all" / experiment).mkdir(parents=True)
            (folder / "all" / experiment / "site").symlink_to(folder / site)
        with serve(folder) as address, serve(folder / "all", find=find_report) as reports:
            told = {"folder": str(folder), "address": address, "reports": reports}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
            sys.stdin.read()


if __name__ == "__main__":
    main()
