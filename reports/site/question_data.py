"""The data of the pages' lists, as classic scripts: pages opened from disk cannot fetch JSON.

`data/<benchmark>/questions.js` holds the questions once and every model's marks and picks, one
character a question (ten checkpoints of 1,000 questions: 10 KB a scorer). Each evaluation's raw
outputs stand in a script of their own, loaded when a person opens a question: ten of them are 2 MB
and grow with the length of the thoughts. `data/clips.js` lists the usable training clips. Names out
of data are values here, never keys.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from reports.numbers.statistics import GroupKey, label_of
from reports.report import Report
from reports.sheets import BenchmarkSheet, EvaluationSheet, FetchSheet
from reports.site.links import benchmark_slugs, clip_address
from storage.jsonl import write_text

CODED: tuple[GroupKey, ...] = ("task", "sub_category", "difficulty")  # columns of few values


def write_question_data(
    report: Report,
    site: Path,
    *,
    audio: Mapping[str, Sequence[str | None]],
    pictures: Mapping[str, Sequence[str | None]] | None = None,
) -> list[dict[str, str]]:
    """Write the scripts of every benchmark; clips and their pictures are addresses by its key.

    Returns:
        What the page must know to begin: each benchmark's name and the folder of its scripts.
    """
    slugs = benchmark_slugs(report)
    for index, benchmark in enumerate(report.benchmarks):
        folder = site / "data" / slugs[benchmark.key]
        clips = audio.get(benchmark.key) or [None] * len(benchmark.questions)
        questions = _question_data(report, benchmark, clips)
        questions["spectrograms"] = (pictures or {}).get(benchmark.key, ())
        write_text(folder / "questions.js", _call("questions", index, questions))
        for position, sheet in enumerate(report.on(benchmark)):
            outputs = _call("outputs", position, _outputs(sheet))
            write_text(folder / f"{position:03d}.js", outputs)
    return [
        {"name": benchmark.name, "folder": f"data/{slugs[benchmark.key]}"}
        for benchmark in report.benchmarks
    ]


def write_clip_data(fetch: FetchSheet, site: Path) -> None:
    """Write the script of the usable training clips; those whose wav is not there have a 0."""
    clips = fetch.usable
    there = (clip.is_kept and clip_address(fetch.folder, clip.clip) for clip in clips)
    columns: dict[str, object] = {
        "folder": fetch.folder,
        "id": [clip.clip for clip in clips],
        "source": _codes([clip.source or "unknown" for clip in clips]),
        "note": _codes([clip.note for clip in clips]),
        "there": "".join("01"[bool(is_there)] for is_there in there),
    }
    write_text(site / "data" / "clips.js", _call("clips", 0, columns))


def _call(kind: str, index: int, value: dict[str, object]) -> str:
    """A script that hands a value to the page; ASCII only, so that no character can end a line."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return f"reportData({json.dumps(kind)},{index},{text});\n"


def _question_data(
    report: Report, benchmark: BenchmarkSheet, clips: Sequence[str | None]
) -> dict[str, object]:
    questions, own = benchmark.questions, report.on(benchmark)
    columns = ("id", "question", "choices", "answer", "dataset")
    scorers = [name for name in report.scorers if any(name in sheet.marks for sheet in own)]
    blank = "-" * len(questions)
    return {
        "scorers": scorers,
        **{name: [getattr(question, name) for question in questions] for name in columns},
        **{key: _codes([label_of(question, key) for question in questions]) for key in CODED},
        "audio": clips,
        "evaluations": [
            {
                "label": report.label(sheet.key),
                "model": sheet.model,
                "step": sheet.step,
                "control": sheet.key.control,
                "marks": [sheet.marks.get(name, blank) for name in scorers],
                "parsed": sheet.parsed,
                "picks": sheet.picks,
                "finished": sheet.finished if "0" in sheet.finished else "",
            }
            for sheet in own
        ],
        "compared": _first_pair(report, benchmark, own),
    }


def _codes(column: Sequence[str]) -> dict[str, object]:
    """A column of few values as positions in a list of them."""
    values = sorted(set(column))
    position = {value: index for index, value in enumerate(values)}
    return {"values": values, "codes": [position[value] for value in column]}


def _outputs(sheet: EvaluationSheet) -> dict[str, object]:
    """One model's raw texts; a reason is stored once."""
    return {
        "completions": sheet.completions,
        "answers": sheet.answers,
        "reasons": _codes(sheet.reasons),
        "tokens": sheet.num_tokens,
        "finished": sheet.finished,
    }


def _first_pair(
    report: Report, benchmark: BenchmarkSheet, own: Sequence[EvaluationSheet]
) -> list[int]:
    """Positions of the two evaluations that the page shows first: a start model and what led."""
    judged = report.judged(benchmark)
    if judged:
        for training in report.trainings:
            leading = judged.leading(training)
            if leading:
                return [own.index(judged.start(training) or leading), own.index(leading)]
    return [0, 0]
