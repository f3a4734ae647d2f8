"""The report of an experiment that never ran, rendered: what the golden files and faults look at.

The one place of these tests that knows how a site is made from a workspace.
"""

import shutil
from pathlib import Path
from typing import Any

from benchmarks.synthetic_experiment import withhold_answers, write_experiment
from reports.config import ReportConfig
from reports.read import audio_roots, read_report
from reports.sheets import Provenance
from reports.site.render import render
from storage.layout import Layout

PROVENANCE = Provenance(
    command="python -m flows.full_pipeline --profile paper",
    commit="0123abc",
    python="3.11.9",
    versions={"torch": "2.13.0", "transformers": "5.23.0"},
)

Json = dict[str, Any]


def make_site(layout: Layout, profile: Json) -> Path:
    """Read and render as the report stage does, with a provenance that never changes."""
    report = read_report(layout, ReportConfig(), settings=profile, provenance=PROVENANCE)
    roots = audio_roots(layout, profile, report.benchmarks)
    render(report, layout.site, audio_roots=roots)
    return layout.site


def make_golden_site(workspace: Path) -> Path:
    """Two trainings on a test with published rows, held-out examples and a withheld test."""
    layout, profile = write_experiment(
        workspace,
        num_questions=48,
        steps=(10, 20, 30),
        benchmarks=("mmau-test-mini-original", "mmau-test-v05.15.25", "validation"),
        trainings=("grpo", "sft"),
        with_controls=True,
        num_thoughts=1,
    )
    withhold_answers(layout, "mmau-test-v05.15.25")
    clips = layout.benchmark("mmau-test-mini-original") / "audio/test-mini-audios"
    clips.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("clip.wav"), clips / "0000.wav")
    return make_site(layout, profile)
