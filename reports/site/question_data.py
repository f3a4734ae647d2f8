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
from typing import NamedTuple

from reports.numbers.tally import GroupKey, label_of
from reports.report import Report
from reports.sheets import BenchmarkSheet, EvaluationSheet, FetchSheet
from reports.site.links import benchmark_slugs, clip_address
from storage.jsonl import write_text

CODED: tuple[GroupKey, ...] = ("task", "sub_category", "difficulty")  # columns of few values


class QuestionData(NamedTuple):
    """What the page must know to begin."""

    name: str
    """Of the benchmark."""
    folder: str
    """Of its scripts."""


def write_question_data(
    report: Report,
    site: Path,
    *,
    audio: Mapping[str, Sequence[str | None]],
    pictures: Mapping[str, Sequence[str | None]] | None = None,
) -> list[QuestionData]:
    """Write the scripts of every benchmark; clips and their pictures are addresses by its key."""
    slugs = benchmark_slugs(report)
    shown: list[QuestionData] = []
    for index, benchmark in enumerate(report.benchmarks):
        folder = f"data/{slugs[benchmark.key]}"
        clips = audio.get(benchmark.key) or [None] * len(benchmark.questions)
        questions = _question_data(report, benchmark, clips)
        questions["spectrograms"] = list((pictures or {}).get(benchmark.key, ()))
        write_text(site / folder / "questions.js", _call("questions", index, questions))
        for position, evaluation in enumerate(report.on(benchmark)):
            outputs = _call("outputs", position, _outputs(evaluation))
            write_text(site / folder / f"{position:03d}.js", outputs)
        shown.append(QuestionData(benchmark.name, folder))
    return shown


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
    scorers = [
        name for name in report.scorers if any(name in evaluation.marks for evaluation in own)
    ]
    blank = "-" * len(questions)
    return {
        "scorers": scorers,
        **{name: [getattr(question, name) for question in questions] for name in columns},
        **{key: _codes([label_of(question, key) for question in questions]) for key in CODED},
        "audio": list(clips),
        "evaluations": [
            {
                "label": report.label(evaluation.key),
                "model": evaluation.model,
                "step": evaluation.step,
                "control": evaluation.key.control,
                "marks": [evaluation.marks.get(name, blank) for name in scorers],
                "parsed": evaluation.parsed,
                "picks": evaluation.picks,
                "finished": evaluation.finished if "0" in evaluation.finished else "",
            }
            for evaluation in own
        ],
        "compared": _first_pair(report, benchmark, own),
    }


def _codes(column: Sequence[str]) -> dict[str, object]:
    """A column of few values as positions in a list of them."""
    values = sorted(set(column))
    position = {value: index for index, value in enumerate(values)}
    return {"values": values, "codes": [position[value] for value in column]}


def _outputs(evaluation: EvaluationSheet) -> dict[str, object]:
    """One model's raw texts; a reason is stored once."""
    return {
        "completions": evaluation.completions,
        "answers": evaluation.answers,
        "reasons": _codes(evaluation.reasons),
        "tokens": evaluation.num_tokens,
        "finished": evaluation.finished,
    }


def _first_pair(
    report: Report, benchmark: BenchmarkSheet, own: Sequence[EvaluationSheet]
) -> list[int]:
    """Positions of the two evaluations that the page shows first: a start model and what led."""
    scorer = report.leading_scorer(benchmark)
    for training in report.trainings if scorer else ():
        leading = report.leading_evaluation(benchmark, str(scorer), training)
        start = report.start_evaluation(benchmark, str(scorer), training)
        if leading:
            return [own.index(start or leading), own.index(leading)]
    return [0, 0]
