"""Every answer as one tidy table: a row a model x benchmark x prompt x control x question x scorer.

Made once a report, written as results.parquet, and read in a notebook by `reports.results`.
"""

from typing import TYPE_CHECKING

from reports.numbers.tally import label_of
from reports.report import Report
from reports.sheets import BenchmarkSheet, EvaluationSheet

if TYPE_CHECKING:
    import pandas as pd

# Columns whose values come again and again: a table of 40,000 rows takes 0.4 MB.
CATEGORIES = (
    *("model", "training", "role", "method", "variant"),
    *("benchmark", "prompt", "control", "scorer"),
    *("question", "task", "category", "sub_category", "difficulty", "answer"),
)
RIGHT = {"1": True, "0": False}  # no other mark is a judgement


def results_table(report: Report) -> "pd.DataFrame":
    """The table, in the report's order.

    Returns:
        Columns `model, training, step, seed, role, method, variant, benchmark, prompt, control,
        scorer, question` (its id)`, task, category, sub_category, difficulty, right, answer,
        choice_index`. `right` is missing where the answer is withheld, `choice_index` where the
        answer is none of the choices; `step` and `seed` are a checkpoint's.
    """
    import pandas as pd  # noqa: PLC0415  half a second, which no other stage should pay

    benchmarks = {benchmark.key: benchmark for benchmark in report.benchmarks}
    parts = [
        pd.DataFrame(_columns(evaluation, benchmarks[evaluation.key.benchmark], scorer))
        for evaluation in report.evaluations
        for scorer in evaluation.marks or report.scorers
    ]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    types = dict.fromkeys(CATEGORIES, "category")
    types |= {"step": "Int64", "seed": "Int64", "choice_index": "Int64", "right": "boolean"}
    return table.astype(types) if parts else table


def _columns(
    evaluation: EvaluationSheet, benchmark: BenchmarkSheet, scorer: str
) -> dict[str, object]:
    run, questions = evaluation.run, benchmark.questions
    ref = run.model.training if evaluation.training else None
    marks = evaluation.marks.get(scorer, "-" * len(questions))
    return {
        "model": evaluation.model,
        "training": evaluation.training,
        "step": evaluation.step,
        "seed": ref.seed if ref else None,
        "role": run.role,
        "method": run.method,
        "variant": run.variant,
        "benchmark": benchmark.name,
        "prompt": evaluation.prompt,
        "control": evaluation.key.control,
        "scorer": scorer,
        "question": [question.id for question in questions],
        "task": [label_of(question, "task") for question in questions],
        "category": [label_of(question, "category") for question in questions],
        "sub_category": [label_of(question, "sub_category") for question in questions],
        "difficulty": [label_of(question, "difficulty") for question in questions],
        "right": [RIGHT.get(mark) for mark in marks],
        "answer": list(evaluation.answers),
        "choice_index": [int(pick, 36) if pick not in "-?" else None for pick in evaluation.picks],
    }
