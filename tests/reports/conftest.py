"""A small experiment that never ran, gathered and rendered once for all tests of this folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.synthetic_experiment import write_experiment
from reports.config import ReportConfig
from reports.read import gather
from reports.site.render import render

Json = dict[str, Any]
PROVENANCE = {"commit": "0123abc", "dirty": False, "command": "python -m flows.full_pipeline"}


@pytest.fixture
def make_report(tmp_path: Path) -> Callable[..., Json]:
    """Gather an experiment written with the given size."""

    def make(config: ReportConfig | None = None, **size: Any) -> Json:
        layout, profile = write_experiment(tmp_path, **size)
        return gather(
            layout,
            config or ReportConfig(),
            experiment_config=profile,
            provenance=PROVENANCE,
        )

    return make


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Json:
    """A report of one training with three checkpoints; tests must not change it."""
    layout, profile = write_experiment(tmp_path_factory.mktemp("whole"), with_controls=True)
    return gather(layout, ReportConfig(), experiment_config=profile, provenance=PROVENANCE)


@pytest.fixture(scope="session")
def site(report: Json, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rendered site of that report."""
    folder = tmp_path_factory.mktemp("rendered") / "site"
    render(report, folder, audio_roots={})
    return folder
