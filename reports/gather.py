"""Gathers one experiment's files into the report: one JSON document, from which every page and table is made.

The document is the whole input of the pages (plus the audio files): the same document gives the same bytes. Its shape is
versioned by `schema`; fractions stay 0..1 until they are shown.
"""

from typing import Any

from reports.clips import read_convert, read_fetch
from reports.config import ReportConfig
from reports.evaluations import read_benchmarks, read_evaluations
from reports.published import read_published
from reports.trainings import read_trainings, start_models
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
        provenance: What the caller knows of commit, versions, hardware, command and times; shown as it is.

    Raises:
        PipelineError: If nothing was evaluated, or files contradict each other.
    """
    evaluate = experiment_config.get("evaluate") or {}
    names = [benchmark["name"] for benchmark in evaluate.get("benchmarks") or []]
    benchmarks = read_benchmarks(layout, first=names)
    if not benchmarks:
        msg = (
            f"{layout.root / 'evaluation'} holds no evaluation to report; run the evaluate stage first "
            f"(its result is evaluation/<model>/<benchmark>/<prompt>/score.json)"
        )
        raise PipelineError(msg)
    trainings = read_trainings(layout, experiment_config.get("train") or [])
    return {
        "schema": SCHEMA,
        "experiment": layout.experiment,
        "config": experiment_config,
        "provenance": provenance,
        "scorers": list(evaluate.get("scorers") or ["official", "strict"]),
        "benchmarks": benchmarks,
        "evaluations": [_as_start(one, trainings) for one in read_evaluations(layout, benchmarks)],
        "trainings": trainings,
        "fetch": read_fetch(layout),
        "convert": read_convert(layout),
        "published": read_published(config),
    }


def _as_start(evaluation: dict[str, Any], trainings: list[dict[str, Any]]) -> dict[str, Any]:
    """A warm start's last checkpoint is the start model of what follows it: it has no step of its own in the tables."""
    by_name = {training["name"]: training for training in trainings}
    own = by_name.get(evaluation["training"] or "")
    starts = tuple(key for key in start_models(trainings).values() if key.endswith("-step-"))
    if own and not own["evaluated"] and evaluation["model"].startswith(starts):
        return {**evaluation, "training": None, "step": None, "method": "base"}
    return evaluation
