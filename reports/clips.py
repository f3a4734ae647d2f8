"""Reads what became of the training audio: clips asked for, usable, gone and why.

The paper trained on about 38,000 of AVQA's 40,425 questions because sources had vanished, and says
nothing of which. Here every lost clip has a reason, and the shares of the question types before and
after are put side by side.
"""

import csv
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from storage.data import avqa
from storage.errors import PipelineError
from storage.jsonl import read_appended, read_json, read_jsonl
from storage.layout import Layout

Json = dict[str, Any]


def read_fetch(layout: Layout) -> Json | None:
    """The account of the fetch stage, with losses over time; None where nothing was fetched."""
    path = layout.fetch / "fetch_report.json"
    if not path.exists():
        return None
    account = read_json(path)
    reasons: list[Json] = account.get("by_reason") or []
    losses = read_appended(layout.fetch / "invalid.jsonl")
    clips = _read_csv(layout.fetch / "clips.csv")
    return {
        "requested": int(account.get("requested", len(clips))),
        "usable": int(account.get("usable", 0)),
        "by_state": dict(account.get("by_state") or {}),
        "by_reason": [
            {"state": str(row["state"]), "reason": str(row["reason"]), "count": int(row["count"])}
            for row in reasons
        ],
        "by_source": _counts(
            row.get("source") or "" for row in clips if row.get("state") == "done"
        ),
        "losses_by_day": _losses_by_day(losses),
        "facts": {key: value for key, value in account.items() if key not in _SHOWN_ELSEWHERE},
    }


_SHOWN_ELSEWHERE = ("requested", "usable", "by_state", "by_reason", "by_source")


def _read_csv(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _losses_by_day(losses: Iterable[Json]) -> list[Json]:
    """Clips by the day (UTC) on which they were last found unusable."""
    days = Counter(str(row.get("last_try") or "")[:10] or "unknown" for row in losses)
    return [{"day": day, "count": days[day]} for day in sorted(days)]


def read_convert(layout: Layout, *, annotations: str | None) -> Json | None:
    """Rows kept and dropped, by reason and by question type; None where nothing was converted.

    Args:
        layout: Where they are.
        annotations: Path or address of AVQA's file, which knows the dropped rows' types; without
            it, or where it cannot be read, the dropped rows have none.
    """
    if not layout.train_jsonl.exists():
        return None
    kept = read_jsonl(layout.train_jsonl)
    dropped = read_appended(layout.dropped_jsonl)
    types = _question_types(layout, annotations) if dropped and annotations else {}
    dropped = [{**types.get(str(row.get("id")), {}), **row} for row in dropped]
    return {
        "kept": len(kept),
        "dropped": len(dropped),
        "by_reason": _counts(str(row.get("reason") or "") for row in dropped),
        "question_types": _kept_by(kept, dropped, "question_type"),
        "question_relations": _kept_by(kept, dropped, "question_relation"),
    }


def _question_types(layout: Layout, annotations: str) -> dict[str, Json]:
    """Type and relation of every annotation row by id, from the file that convert has read."""
    try:
        rows = avqa.read_annotations(annotations, layout.workspace / "annotations").rows
    except PipelineError:
        return {}
    return {
        str(row.id): {
            "question_type": row.question_type,
            "question_relation": row.question_relation,
        }
        for row in rows
    }


def _kept_by(kept: Iterable[Json], dropped: Iterable[Json], key: str) -> list[Json]:
    """Kept and dropped rows by one key; a dropped row without it is not counted here."""
    kept_counts = Counter(str(row.get(key) or "none given") for row in kept)
    lost_counts = Counter(str(row[key]) for row in dropped if row.get(key))
    names = sorted(kept_counts | lost_counts, key=lambda name: (-kept_counts[name], name))
    return [
        {"name": name, "kept": kept_counts[name], "dropped": lost_counts[name]} for name in names
    ]


def _counts(names: Iterable[str]) -> list[Json]:
    counted = Counter(names)
    order = sorted(counted, key=lambda name: (-counted[name], name))
    return [{"name": name, "count": counted[name]} for name in order]
