"""Every answer as one tidy table: a row a model x benchmark x prompt x control x question x scorer.

Made once a report, written as results.parquet, and read in a notebook by `reports.results`.
"""

# pyarrow is untyped:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from reports.numbers.tally import GroupKey, label_of
from reports.report import Report
from reports.sheets import BenchmarkSheet, EvaluationSheet

if TYPE_CHECKING:
    import pyarrow as pa

GROUPS: tuple[GroupKey, ...] = ("task", "category", "sub_category", "difficulty")
RIGHT = {"1": True, "0": False}  # no other mark is a judgement


def results_table(report: Report) -> "pa.Table":
    """The table, in the report's order.

    Returns:
        Columns `model, training, step, seed, role, method, variant, benchmark, prompt, control,
        scorer, question` (its id)`, task, category, sub_category, difficulty, answer, right,
        choice_index`. `right` is missing where the answer is withheld, `choice_index` where the
        answer is none of the choices; `step` and `seed` are a checkpoint's. Columns of text hold
        each value once: 820,000 rows take 14 MB.
    """
    import pyarrow as pa  # noqa: PLC0415  a third of a second, which no other stage should pay

    benchmarks = {benchmark.key: benchmark for benchmark in report.benchmarks}
    asked = {key: _asked(benchmark) for key, benchmark in benchmarks.items()}
    columns: dict[str, list[pa.Array]] = {}
    for evaluation in report.evaluations:
        answers = pa.array(evaluation.answers, pa.string()).dictionary_encode()
        indices = [int(pick, 36) if pick not in "-?" else None for pick in evaluation.picks]
        found = asked[evaluation.key.benchmark]
        for scorer in evaluation.marks or report.scorers:
            marks = evaluation.marks.get(scorer, "-" * len(indices))
            same = {
                name: pa.repeat(pa.scalar(value, kind), len(indices))
                for name, (value, kind) in _of(evaluation, benchmarks, scorer).items()
            }
            own = {
                "answer": answers,
                "right": pa.array([RIGHT.get(mark) for mark in marks], pa.bool_()),
                "choice_index": pa.array(indices, pa.int64()),
            }
            for name, column in {**same, **found, **own}.items():
                columns.setdefault(name, []).append(column)
    chunks = {name: pa.chunked_array(arrays) for name, arrays in columns.items()}
    return pa.table(
        {
            name: column.dictionary_encode() if column.type == pa.string() else column
            for name, column in chunks.items()
        }
    ).unify_dictionaries()


def write_results(report: Report, path: Path) -> None:
    """Write the table as a Parquet file."""
    from pyarrow import parquet  # noqa: PLC0415  see above

    parquet.write_table(results_table(report), path)


def _asked(benchmark: BenchmarkSheet) -> "dict[str, pa.Array]":
    """What is the same for every model: the questions' ids and groups."""
    import pyarrow as pa  # noqa: PLC0415  see above

    columns = {"question": [question.id for question in benchmark.questions]}
    for key in GROUPS:
        columns[key] = [label_of(question, key) for question in benchmark.questions]
    return {name: pa.array(column).dictionary_encode() for name, column in columns.items()}


def _of(
    evaluation: EvaluationSheet, benchmarks: Mapping[str, BenchmarkSheet], scorer: str
) -> dict[str, tuple[object, str]]:
    """What is the same for every question of an evaluation, with its Arrow type."""
    run = evaluation.run
    ref = run.model.training if evaluation.training else None
    texts = {
        "model": evaluation.model,
        "training": evaluation.training,
        "role": run.role,
        "method": run.method,
        "variant": run.variant,
        "benchmark": benchmarks[evaluation.key.benchmark].name,
        "prompt": evaluation.prompt,
        "control": evaluation.key.control,
        "scorer": scorer,
    }
    numbers = {"step": evaluation.step, "seed": ref.seed if ref else None}
    found: dict[str, tuple[object, str]] = {name: (text, "string") for name, text in texts.items()}
    return found | {name: (number, "int64") for name, number in numbers.items()}
