"""Reads what became of the training audio: clips asked for, usable, gone and why.

The paper trained on about 38,000 of AVQA's 40,425 questions because sources had vanished, and says
nothing of which. Here every lost clip has a reason, and the shares of the question types before and
after are put side by side.
"""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from reports.sheets import Count, FetchSheet, KeptRows, LostClip, RowsSheet, UsableClip, flat
from storage.data import avqa
from storage.errors import PipelineError
from storage.jsonl import Record, read_appended, read_json, read_jsonl
from storage.layout import Layout
from storage.records.clip import parse_video_name
from storage.records.example import DataAccount

Row = Mapping[str, object]
TypeKey = Literal["question_type", "question_relation"]
NOTES = ("silent", "short", "cancelled")
# What the account says of clips in sum; the pages count the clips.
SUMS = {"requested", "usable", "by_state", "by_reason", "by_source", *NOTES}


def read_fetch(layout: Layout) -> FetchSheet | None:
    """The account of the fetch stage, with losses over time; None where nothing was fetched."""
    path = layout.fetch / "fetch_report.json"
    if not path.exists():
        return None
    account: Record = read_json(path)
    rows = _read_csv(layout.fetch / "clips.csv")
    gone = read_appended(layout.fetch / "invalid.jsonl")
    files = {path.name for path in layout.clips.glob("*.wav")}
    days = Counter(str(row.get("last_try") or "")[:10] or "unknown" for row in gone)
    return FetchSheet(
        folder=layout.clips.name,
        usable=tuple(
            UsableClip(
                row["clip_id"],
                row.get("source") or "",
                ", ".join(note for note in NOTES if row.get(note) == "1"),
                parse_video_name(row["clip_id"]).file_name in files,
            )
            for row in rows
            if row["state"] == "done"
        ),
        losses_by_day=tuple(Count(name=day, count=days[day]) for day in sorted(days)),
        lost=tuple(
            LostClip(
                clip=str(row.get("clip_id")),
                state=str(row.get("state")),
                reason=str(row.get("reason") or ""),
                message=str(row.get("message") or ""),
                is_kept=parse_video_name(str(row["clip_id"])).file_name in files,
            )
            for row in gone
        ),
        facts=tuple(flat({key: account[key] for key in account if key not in SUMS})),
    )


def _read_csv(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_rows(layout: Layout, *, annotations: str | None) -> RowsSheet | None:
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
    reasons = Counter(str(row.get("reason") or "") for row in dropped).most_common()
    types = _question_types(layout, annotations) if dropped and annotations else {}
    typed = [{**types.get(str(row.get("id")), {}), **row} for row in dropped]
    return RowsSheet(
        kept=len(kept),
        dropped=len(dropped),
        by_reason=tuple(Count(name=reason, count=number) for reason, number in reasons),
        question_types=_kept_by(kept, typed, "question_type"),
        question_relations=_kept_by(kept, typed, "question_relation"),
        account=DataAccount.read(path) if (path := layout.data_account).exists() else None,
    )


def _question_types(layout: Layout, annotations: str) -> dict[str, dict[str, object]]:
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


def _kept_by(kept: Sequence[Row], dropped: Sequence[Row], key: TypeKey) -> tuple[KeptRows, ...]:
    """Kept and dropped rows by one key; a dropped row without it is not counted here."""
    kept_counts = Counter(str(row.get(key) or "none given") for row in kept)
    lost_counts = Counter(str(row[key]) for row in dropped if row.get(key))
    names = sorted(kept_counts | lost_counts, key=lambda name: (-kept_counts[name], name))
    return tuple(
        KeptRows(name=name, kept=kept_counts[name], dropped=lost_counts[name]) for name in names
    )
