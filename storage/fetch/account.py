"""The account of an experiment's clips, written after each fetch.

fetch_report.json (the sums), invalid.jsonl (what is not there and why), clips.csv (all clips),
videos.csv (title, channel, date and licence of the videos that came).
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path

from storage.fetch.avqa_hub import LaidOut
from storage.fetch.ledger import ClipRow, Ledger
from storage.fetch.sources import VideoFacts
from storage.jsonl import Record, write_json, write_jsonl, write_text
from storage.records.clip import Clip

CSV_COLUMNS = (
    "clip_id",
    "state",
    "reason",
    "source",
    "sha256",
    "duration_s",
    "peak_dbfs",
    "rms_dbfs",
    "silent",
    "short",
    "cancelled",
)


@dataclass(frozen=True, slots=True)
class FetchReport:
    """How an experiment's clips stand."""

    num_requested: int
    """Clips asked for."""
    num_usable: int
    """Clips that are done."""
    by_state: dict[str, int]
    """Clips by state."""
    by_reason: dict[tuple[str, str], int]
    """Clips that are not done, by state and reason, the most frequent first."""
    next_try: float | None
    """When the first clip is due again, seconds since 1970; None if none waits."""

    @property
    def num_open(self) -> int:
        """Clips that may still come: not tried yet, or to be tried again."""
        return sum(self.by_state.get(state, 0) for state in ("pending", "retry", "unconfirmed"))


def write_account(
    ledger: Ledger,
    clips: Sequence[Clip],
    folder: Path,
    *,
    versions: Mapping[str, str],
    videos_per_hour: float | None,
    laid_out: Sequence[LaidOut] = (),
) -> FetchReport:
    """Write the files of an experiment and return what they say in sum."""
    rows = ledger.rows(clips)
    done = [row for row in rows if row.state == "done"]
    lost = [row for row in rows if row.state != "done"]
    videos = ledger.videos(row.clip for row in done)
    reasons = Counter((str(row.state), row.reason_code) for row in lost)
    report = FetchReport(
        num_requested=len(rows),
        num_usable=len(done),
        by_state=dict(Counter(row.state for row in rows)),
        by_reason=dict(reasons.most_common()),
        next_try=min((row.next_try for row in rows if row.next_try is not None), default=None),
    )
    write_jsonl(folder / "invalid.jsonl", map(_loss, lost))
    _write_csv(folder / "clips.csv", CSV_COLUMNS, map(_values, rows))
    facts = (astuple(videos[video_id]) for video_id in sorted(videos))
    _write_csv(folder / "videos.csv", list(VideoFacts.__slots__), facts)
    tries = [at for row in rows for at in (row.first_try, row.last_try) if at is not None]
    record = {
        "requested": report.num_requested,
        "usable": report.num_usable,
        "by_state": report.by_state,
        "by_reason": [
            {"state": state, "reason": reason, "count": count}
            for (state, reason), count in report.by_reason.items()
        ],
        "silent": sum(row.silent for row in done),
        "short": sum(row.short for row in done),
        "cancelled": sum(row.cancelled for row in done),
        "by_source": dict(Counter(row.source for row in done)),
        "by_licence": dict(Counter(_licence(videos.get(row.video_id)) for row in done)),
        "datasets": [dataset._asdict() for dataset in laid_out],
        "source_bytes": sum(row.source_bytes or 0 for row in rows),
        "versions": dict(versions),
        "videos_per_hour": videos_per_hour,
        "next_try": _iso(report.next_try),
        "started": _iso(min(tries, default=None)),
        "finished": _iso(max(tries, default=None)),
    }
    # Last, so that whoever finds it finds the others.
    write_json(folder / "fetch_report.json", record)
    return report


def _loss(row: ClipRow) -> Record:
    return {
        "clip_id": row.clip_id,
        "state": row.state,
        "reason": row.reason_code,
        "message": row.message,
        "http_status": row.http_status,
        "attempts": row.attempts,
        "first_try": _iso(row.first_try),
        "last_try": _iso(row.last_try),
    }


def _licence(facts: VideoFacts | None) -> str:
    return "unknown" if facts is None else facts.licence or "YouTube's own"


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_text(path, text.getvalue())


def _values(row: ClipRow) -> list[object]:
    values = (getattr(row, "reason_code" if name == "reason" else name) for name in CSV_COLUMNS)
    return [int(value) if isinstance(value, bool) else value for value in values]


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
