"""File names of the site, made by us: no name out of data becomes a path as it is."""

import re
from typing import Any

Json = dict[str, Any]


def slug(text: str) -> str:
    """Text as part of a file name: lower-case letters, digits, `.` and `-`; never empty."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower())[:60].strip(".-") or "unnamed"


def unique_slugs(names: list[str]) -> dict[str, str]:
    """A file name's part for each name; two names that would collide get a number."""
    slugs: dict[str, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys(names):
        base = candidate = slug(name)
        number = 2
        while candidate in taken:
            candidate, number = f"{base}-{number}", number + 1
        taken.add(candidate)
        slugs[name] = candidate
    return slugs


def model_files(report: Json) -> dict[str, str]:
    """Page of each model key: its training's page for a checkpoint, its own for any other model."""
    trainings = training_files(report)
    evaluations = report["evaluations"]
    others = [
        one["model"]
        for one in evaluations
        if one["step"] is None or one["training"] not in trainings
    ]
    slugs = unique_slugs(others)
    files = {name: f"model-{slugs[name]}.html" for name in slugs}
    for one in evaluations:
        if one["step"] is not None and one["training"] in trainings:
            files[one["model"]] = trainings[one["training"]]
    return files


def training_files(report: Json) -> dict[str, str]:
    """Page of each training."""
    slugs = unique_slugs([training["name"] for training in report["trainings"]])
    return {name: f"training-{part}.html" for name, part in slugs.items()}


def compare_file(report: Json, first: str, second: str) -> str:
    """Page that compares two models by key."""
    slugs = unique_slugs([one["model"] for one in report["evaluations"]])
    return f"compare-{slugs[first]}-{slugs[second]}.html"
