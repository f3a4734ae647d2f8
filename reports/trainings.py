"""Reads what training wrote: what it started from, its curves, and the examples not used."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

from pydantic import BaseModel

from reports.sheets import Count, Curve, TrainingSheet
from storage.jsonl import Record, read_appended
from storage.layout import Layout, checkpoint_step, list_checkpoints
from storage.records.prompt import NamedPrompt
from storage.records.training import (
    METRICS,
    RUN,
    Sampled,
    TrainingRecord,
    end_step,
    read_metrics,
    read_sampled,
    warnings_of,
)


class TrainingEntry(BaseModel):
    """What the report needs of a training's settings."""

    name: str
    method: Literal["grpo", "sft"] = "grpo"
    model: str = ""
    prompt: NamedPrompt = "answer"
    seed: int = 42
    evaluate: bool = True
    lora: object = None
    max_steps: int | None = None
    save_steps: int | None = None
    continues: str | None = None
    stop: dict[str, int] | None = None

    def planned(self, folder: Path) -> tuple[int, ...]:
        """Steps whose checkpoints are saved: every so many, and the last; empty: not known."""
        if self.max_steps is None or self.save_steps is None:
            return ()
        patience = self.stop["patience"] if self.stop else None
        last = end_step(folder, self.max_steps, patience) or self.max_steps
        steps = {*range(self.save_steps, last + 1, self.save_steps), last}
        before = int((self.continues or "@0").rpartition("@")[2])
        return tuple(sorted(step for step in steps if step > before))


def read_training_sheet(layout: Layout, entry: TrainingEntry) -> TrainingSheet:
    """Read one training of the profile; one that has not run yet has an empty curve."""
    folder = layout.training(entry.name)
    dropped = Counter(
        str(row.get("reason") or "") for row in read_appended(folder / "dropped.jsonl")
    )
    steps = (checkpoint_step(path) for path in list_checkpoints(folder))
    run = TrainingRecord.read(folder / RUN) if (folder / RUN).exists() else None
    logged = curve(read_appended(folder / METRICS))
    seconds = [second for second in logged.metrics.get("seconds_total", ()) if second is not None]
    return TrainingSheet(
        name=entry.name,
        method=entry.method,
        variant="lora" if entry.lora else "full",
        prompt=entry.prompt,
        seed=entry.seed,
        start_model=entry.model,
        evaluated=entry.evaluate,
        planned=entry.planned(folder),
        start=run.start if run else None,
        settings=run.settings if run else {},
        checkpoint_steps=tuple(step for step in steps if step is not None),
        curve=logged,
        device_hours=sum(seconds) * run.num_devices / 3600 if run and seconds else None,
        warnings=tuple(warnings_of(read_metrics(folder))),
        samples=_one_prompt(read_sampled(folder)),
        dropped=tuple(Count(name=reason, count=dropped[reason]) for reason in sorted(dropped)),
    )


def _one_prompt(found: Sequence[Sampled]) -> tuple[Sampled, ...]:
    """Completions of the prompt that was sampled at most steps, one a step."""
    by_id: dict[str, dict[int, Sampled]] = {}
    for sampled in found:
        by_id.setdefault(sampled.id, {}).setdefault(sampled.step, sampled)
    longest = max(by_id, key=lambda name: len(by_id[name]), default="")
    return tuple(by_id.get(longest, {}).values())


def curve(lines: Sequence[Record]) -> Curve:
    """Metrics as columns: every number logged; of a step logged twice, the last."""
    by_step: dict[int, Record] = {
        int(line["step"]): line
        | {"seconds_total": cast("Record", line.get("seconds", {})).get("total")}
        for line in lines
        if isinstance(line.get("step"), int)
    }
    steps = sorted(by_step)
    found = {
        name
        for line in by_step.values()
        for name, value in line.items()
        if _number(value) is not None
    }
    columns = {
        name: tuple(_finite(by_step[step].get(name)) for step in steps)
        for name in sorted(found - {"step"})
    }
    return Curve(step=tuple(steps), metrics=columns)


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _finite(value: object) -> float | None:
    number = _number(value)
    return number if number is not None and math.isfinite(number) else None
