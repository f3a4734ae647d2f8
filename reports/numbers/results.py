"""Every answer as one tidy table: a row a model x benchmark x prompt x control x question x scorer.

Made once a report, written as results.parquet, and read in a notebook by `reports.results`.
"""

# pyarrow is untyped:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from reports.numbers.statistics import GroupKey, label_of
from reports.report import Report
from reports.sheets import BenchmarkSheet, EvaluationSheet

GROUPS: tuple[GroupKey, ...] = ("task", "category", "sub_category", "difficulty")
RIGHT = {"1": True, "0": False}  # no other mark is a judgement


def results_table(report: Report) -> pa.Table:
    """The table, in the report's order.

    Returns:
        Columns `model, training, step, seed, role, method, variant, benchmark, prompt, control,
        scorer, question` (its id)`, task, category, sub_category, difficulty, answer, right,
        choice_index`. `right` is missing where the answer is withheld, `choice_index` where the
        answer is none of the choices; `step` and `seed` are a checkpoint's. Columns of text hold
        each value once: 820,000 rows take 14 MB.
    """
    asked = {benchmark.key: _asked(benchmark) for benchmark in report.benchmarks}
    parts: list[pa.Table] = []
    for sheet in report.evaluations:
        answers = _texts(sheet.answers)
        indices = [int(pick, 36) if pick not in "-?" else None for pick in sheet.picks]
        for scorer in sheet.marks or report.scorers:
            marks = sheet.marks.get(scorer, "-" * len(indices))
            own = {
                "answer": answers,
                "right": pa.array([RIGHT.get(mark) for mark in marks], pa.bool_()),
                "choice_index": pa.array(indices, pa.int64()),
            }
            same, found = _same(sheet, scorer), asked[sheet.key.benchmark]
            parts.append(pa.table({**same, **found, **own}))
    return pa.concat_tables(parts).unify_dictionaries() if parts else pa.table({})


def write_results(report: Report, path: Path) -> None:
    """Write the table as a Parquet file."""
    parquet.write_table(results_table(report), path)


def _texts(column: Sequence[str | None]) -> pa.Array:
    return pa.array(column, pa.string()).dictionary_encode()


def _asked(benchmark: BenchmarkSheet) -> dict[str, pa.Array]:
    """What is the same for every model: the questions' ids and groups."""
    questions = benchmark.questions
    columns = {key: _texts([label_of(question, key) for question in questions]) for key in GROUPS}
    return {"question": _texts([question.id for question in questions]), **columns}


def _same(sheet: EvaluationSheet, scorer: str) -> Mapping[str, pa.Array]:
    """What is the same for every question of an evaluation."""
    run, size, made = sheet.run, len(sheet.picks), sheet.made
    texts = {
        "model": sheet.model,
        "training": sheet.training,
        "role": run.role,
        "method": run.method,
        "variant": run.variant,
        "benchmark": run.benchmark_name,
        "prompt": sheet.prompt,
        "control": sheet.key.control,
        "scorer": scorer,
    }
    numbers = {"step": sheet.step, "seed": made and made.seed}
    columns = {name: pa.repeat(pa.scalar(text, pa.string()), size) for name, text in texts.items()}
    return {name: column.dictionary_encode() for name, column in columns.items()} | {
        name: pa.repeat(pa.scalar(number, pa.int64()), size) for name, number in numbers.items()
    }
