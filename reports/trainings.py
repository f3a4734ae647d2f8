"""Reads what training wrote: its settings, its curves, and the examples it could not use."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from storage.jsonl import read_appended, read_json
from storage.layout import Layout, checkpoint_step, list_checkpoints

Json = dict[str, Any]


def read_trainings(layout: Layout, entries: Sequence[Json]) -> list[Json]:
    """Every training of the profile, in its order; one that has not run yet has an empty curve."""
    return [_read_training(layout, entry) for entry in entries]


def _read_training(layout: Layout, entry: Json) -> Json:
    folder = layout.training(entry["name"])
    run_path = folder / "run.json"
    dropped = Counter(
        str(row.get("reason") or "") for row in read_appended(folder / "dropped.jsonl")
    )
    return {
        "name": entry["name"],
        "method": entry.get("method", "grpo"),
        "start_model": entry.get("model", ""),
        "prompt": entry.get("prompt", ""),
        "evaluated": entry.get("evaluate", True),
        "settings": entry,
        "run": read_json(run_path) if run_path.exists() else {},
        "checkpoint_steps": [checkpoint_step(path) for path in list_checkpoints(folder)],
        "curve": curve(read_appended(folder / "metrics.jsonl")),
        "dropped": [{"reason": reason, "count": dropped[reason]} for reason in sorted(dropped)],
    }


def start_models(trainings: Sequence[Json]) -> dict[str, str]:
    """Key of each training's start model; `NAME-step-` for another training's last."""
    return {training["name"]: _start_key(str(training["start_model"])) for training in trainings}


def _start_key(model: str) -> str:
    if model.startswith("training:"):
        return model.removeprefix("training:") + "-step-"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", model.rstrip("/").rsplit("/", 1)[-1])


def curve(lines: Sequence[Json]) -> Json:
    """Metrics as columns: `step` and every number logged; of a step logged twice, the last.

    Returns:
        `{"step": [1, 2], "reward": [0.4, null]}`; a value that is missing or not finite is null.
    """
    by_step = {int(line["step"]): line for line in lines if isinstance(line.get("step"), int)}
    steps = sorted(by_step)
    names = sorted(
        {name for line in by_step.values() for name, value in line.items() if _is_number(value)}
    )
    columns = {
        name: [_finite(by_step[step].get(name)) for step in steps]
        for name in names
        if name != "step"
    }
    return {"step": steps, **columns}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _finite(value: object) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value
