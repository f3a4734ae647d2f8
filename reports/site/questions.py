"""The data of the question page, as classic scripts: pages opened from disk cannot fetch JSON.

`data/<benchmark>/questions.js` holds the questions once and every model's marks and picks, one
character a question (ten checkpoints of 1,000 questions: 10 KB a scorer). Each evaluation's raw
outputs stand in a script of their own, loaded when a person opens a question: ten of them are 2 MB
and grow with the length of the thoughts. Names out of data are values here, never keys.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reports.numbers.achievements import leading_evaluation, leading_scorer, start_evaluation
from reports.site.links import unique_slugs
from storage.jsonl import write_text

PICK_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
NO_ANSWER, OTHER_TEXT = "-", "?"

Json = dict[str, Any]


def benchmark_slugs(report: Json) -> dict[str, str]:
    """Folder of each benchmark under `data/` and `audio/`."""
    return unique_slugs([benchmark["name"] for benchmark in report["benchmarks"]])


def labels(report: Json, benchmark: str) -> dict[tuple[str, str], str]:
    """Name of each evaluation on a benchmark, by model and folder.

    The model's key, with the prompt where it was asked with several, and the control.
    """
    own = [one for one in report["evaluations"] if one["benchmark"] == benchmark]
    found: dict[tuple[str, str], str] = {}
    for one in own:
        prompts = {two["prompt"] for two in own if two["model"] == one["model"]}
        parts = [one["model"], one["prompt"] if len(prompts) > 1 else None, one["control"]]
        found[one["model"], one["folder"]] = " · ".join(part for part in parts if part)
    return found


def write_question_data(
    report: Json, site: Path, *, audio: dict[str, list[str | None]]
) -> list[Json]:
    """Write the scripts of every benchmark.

    Args:
        report: The report.
        site: The site's folder.
        audio: Addresses of the clips by benchmark, in the order of its questions.

    Returns:
        What the page must know to begin: each benchmark's name and script.
    """
    slugs = benchmark_slugs(report)
    shown: list[Json] = []
    for index, benchmark in enumerate(report["benchmarks"]):
        name = benchmark["name"]
        folder = f"data/{slugs[name]}"
        own = [one for one in report["evaluations"] if one["benchmark"] == name]
        clips = audio.get(name) or [None] * len(benchmark["questions"])
        questions = _question_data(report, benchmark, own, clips)
        write_text(site / folder / "questions.js", _call("questions", index, questions))
        for position, evaluation in enumerate(own):
            outputs = _call("outputs", position, _outputs(evaluation))
            write_text(site / folder / f"{position:03d}.js", outputs)
        shown.append({"name": name, "folder": folder})
    return shown


def _call(kind: str, index: int, value: Json) -> str:
    """A script that hands a value to the page; ASCII only, so that no character can end a line."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return f"reportData({json.dumps(kind)},{index},{text});\n"


def _question_data(
    report: Json, benchmark: Json, own: Sequence[Json], clips: Sequence[str | None]
) -> Json:
    questions: list[Json] = benchmark["questions"]
    columns = ("id", "question", "choices", "answer", "dataset")
    scorers = [name for name in report["scorers"] if any(name in one["marks"] for one in own)]
    names = labels(report, benchmark["name"])
    return {
        "scorers": scorers,
        **{column: [question[column] for question in questions] for column in columns},
        **_as_codes(questions),
        "audio": list(clips),
        "evaluations": [
            {
                "label": names[one["model"], one["folder"]],
                "model": one["model"],
                "step": one["step"],
                "control": one["control"],
                "marks": [one["marks"].get(name, "-" * len(questions)) for name in scorers],
                "parsed": one["parsed"],
                "picks": picks(questions, one["answers"]),
            }
            for one in own
        ],
        "compared": _first_pair(report, benchmark["name"], own),
    }


def _as_codes(questions: Sequence[Json]) -> Json:
    """Columns of few values as positions in a list of them."""
    coded: Json = {}
    for column in ("task", "sub_category", "difficulty"):
        values = sorted({question[column] for question in questions})
        position = {value: index for index, value in enumerate(values)}
        coded[column] = {
            "values": values,
            "codes": [position[question[column]] for question in questions],
        }
    return coded


def picks(questions: Sequence[Json], answers: Sequence[str | None]) -> str:
    """Position of each answer among the choices, one character a question.

    `-` stands for no answer and `?` for a text that is none of the choices.
    """
    return "".join(
        _pick(question["choices"], answer)
        for question, answer in zip(questions, answers, strict=True)
    )


def _pick(choices: Sequence[str], answer: str | None) -> str:
    if answer is None or not answer.strip():
        return NO_ANSWER
    folded = [str(choice).strip().casefold() for choice in choices[: len(PICK_DIGITS)]]
    wanted = answer.strip().casefold()
    return PICK_DIGITS[folded.index(wanted)] if wanted in folded else OTHER_TEXT


def _outputs(evaluation: Json) -> Json:
    """One model's raw texts; a reason is stored once."""
    reasons = sorted(set(evaluation["reasons"]))
    position = {reason: index for index, reason in enumerate(reasons)}
    return {
        "completions": evaluation["completions"],
        "answers": evaluation["answers"],
        "reasons": {
            "values": reasons,
            "codes": [position[reason] for reason in evaluation["reasons"]],
        },
        "tokens": evaluation["num_tokens"],
        "finished": evaluation["finished"],
    }


def _first_pair(report: Json, benchmark: str, own: Sequence[Json]) -> list[int]:
    """Positions of the two evaluations that the page shows first: a start model and what led."""
    scorer = leading_scorer(report, benchmark)
    trainings: list[Json] = report["trainings"] if scorer else []
    for training in trainings:
        name = training["name"]
        leading = leading_evaluation(report, benchmark, scorer=str(scorer), training=name)
        start = start_evaluation(report, benchmark, scorer=str(scorer), training=name)
        if leading:
            return [own.index(start or leading), own.index(leading)]
    return [0, 0]
