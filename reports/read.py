"""Gathers one experiment's files into the report, one JSON document.

The document is the whole input of the pages (plus the audio files): the same document gives the
same bytes. Its shape is versioned by `schema`; fractions stay 0..1 until they are shown.
"""

from typing import Any

from reports.clips import read_convert, read_fetch
from reports.config import ReportConfig
from reports.evaluations import read_benchmarks, read_control_reports, read_evaluations
from reports.published import read_published
from reports.trainings import read_trainings
from storage.errors import PipelineError
from storage.layout import Layout

SCHEMA = 1


def gather(
    layout: Layout,
    config: ReportConfig,
    *,
    experiment_config: dict[str, Any],
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """Read an experiment's folders.

    Args:
        layout: Where they are.
        config: Whether published rows are shown, and a file of further ones.
        experiment_config: The whole profile as JSON.
        provenance: What the caller knows of commit, versions, hardware, command and times; shown as
            it is.

    Raises:
        PipelineError: If nothing was evaluated, or files contradict each other.
    """
    evaluate: dict[str, Any] = experiment_config.get("evaluate") or {}
    entries: list[dict[str, Any]] = evaluate.get("benchmarks") or []
    names = [str(entry["name"]) for entry in entries]
    benchmarks = read_benchmarks(layout, first=names)
    if not benchmarks:
        msg = (
            f"{layout.root / 'evaluation'} holds nothing to report; run the evaluate stage first "
            f"(its result is evaluation/<model>/<benchmark>/<prompt>/score.json)"
        )
        raise PipelineError(msg)
    annotations: dict[str, Any] = experiment_config.get("annotations") or {}
    return {
        "schema": SCHEMA,
        "experiment": layout.experiment,
        "config": experiment_config,
        "provenance": provenance,
        "scorers": list(evaluate.get("scorers") or ["official", "strict"]),
        "benchmarks": benchmarks,
        "evaluations": read_evaluations(layout, benchmarks),
        "control_reports": read_control_reports(layout),
        "trainings": read_trainings(layout, experiment_config.get("train") or []),
        "fetch": read_fetch(layout),
        "convert": read_convert(layout, annotations=annotations.get("train")),
        "published": read_published(config),
    }
