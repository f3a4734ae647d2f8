"""A small experiment that never ran, read and rendered once for all tests of this folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.synthetic_experiment import write_experiment
from reports.config import ReportConfig
from reports.read import read_report
from reports.report import Report
from reports.sheets import Provenance
from reports.site.render import render
from storage.layout import Layout

PROVENANCE = Provenance(commit="0123abc", command="python -m flows.full_pipeline")


def render_site(layout: Layout, profile: dict[str, Any]) -> None:
    """Read an experiment as it lies there, and render its site."""
    render(read_report(layout, ReportConfig(), settings=profile), layout.site, audio_roots={})


def write_two_methods(folder: Path, **size: Any) -> tuple[Layout, dict[str, Any]]:
    """GRPO, and SFT of adapters with another prompt; nothing was fetched."""
    settings = {"sft": {"prompt": "plain", "lora": {"rank": 4}}}
    return write_experiment(
        folder, trainings=("grpo", "sft"), settings=settings, with_fetch=False, **size
    )


@pytest.fixture
def make_report(tmp_path: Path) -> Callable[..., Report]:
    """Read an experiment written with the given size."""

    def make(config: ReportConfig | None = None, **size: Any) -> Report:
        layout, profile = write_experiment(tmp_path, **size)
        return read_report(
            layout, config or ReportConfig(), settings=profile, provenance=PROVENANCE
        )

    return make


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A report of one training with three checkpoints; tests must not change it."""
    layout, profile = write_experiment(tmp_path_factory.mktemp("whole"), with_controls=True)
    return read_report(layout, ReportConfig(), settings=profile, provenance=PROVENANCE)


@pytest.fixture(scope="session")
def site(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rendered site of that report."""
    folder = tmp_path_factory.mktemp("rendered") / "site"
    render(report, folder, audio_roots={})
    return folder
