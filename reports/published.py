"""Published accuracies to set ours beside: published.csv and the user's own file.

Numbers are kept as printed, in percent; where a printed average disagrees with its own categories
the row says so, and nothing is recomputed. A row belongs to one version of a benchmark, which is
part of the benchmark's name: 36 % of the items of MMAU's two versions differ, so they never share a
table.
"""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reports.config import ReportConfig
from reports.numbers.tally import FIRST_TASKS
from storage.errors import PipelineError

PUBLISHED_CSV = Path(__file__).with_name("published.csv")
COLUMNS = (
    "benchmark",
    "version",
    "model",
    "method",
    *FIRST_TASKS,
    "average",
    "source",
    "date",
    "note",
)
TASK_SIZES = {"mmau-test-mini": (333, 334, 333), "mmau-test": (3000, 3000, 3000)}
AVERAGE_TOLERANCE = 0.35  # points; rounding and dropped items explain less, a copied number more
PAPER_SOURCE = "R1-AQA paper, arXiv 2503.11197"
PAPER_METHODS = {"grpo": "GRPO + prompt <2>", "sft": "Full SFT + prompt <1>"}

Json = dict[str, Any]


def read_published(config: ReportConfig) -> list[Json]:
    """Published rows, then the user's own; empty where neither is asked for."""
    rows = read_rows(PUBLISHED_CSV) if config.published else []
    return rows + (read_rows(config.rows) if config.rows else [])


def read_rows(path: Path) -> list[Json]:
    """Rows of a CSV file with the columns of published.csv, accuracies in percent or None.

    Raises:
        PipelineError: If the file or a column is missing or an accuracy is not a percentage; names
            the line.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
            if missing:
                msg = f"{path} lacks the columns {', '.join(missing)}; expected {','.join(COLUMNS)}"
                raise PipelineError(msg)
            return [_row(row, f"{path}:{line}") for line, row in enumerate(reader, start=2)]
    except FileNotFoundError as error:
        msg = (
            f"{path} is missing; report.rows names a CSV file with the columns {','.join(COLUMNS)}"
        )
        raise PipelineError(msg) from error


def _row(row: dict[str, str | None], where: str) -> Json:
    texts = {name: (row.get(name) or "").strip() for name in COLUMNS}
    percents = {
        name: _percent(texts[name], f"{where} column {name}") for name in (*FIRST_TASKS, "average")
    }
    if not texts["benchmark"] or not texts["model"] or not texts["source"]:
        msg = f"{where} needs benchmark, model and source; a row without a source is not shown"
        raise PipelineError(msg)
    if not texts["benchmark"].endswith(texts["version"]):
        msg = f"{where} says version {texts['version']}, but its benchmark is {texts['benchmark']}"
        raise PipelineError(msg)
    return {**texts, **percents}


def _percent(text: str, where: str) -> float | None:
    if not text or text == "-":
        return None
    try:
        percent = float(text)
    except ValueError as error:
        msg = f"{where} is {text!r}, expected a percentage like 64.50"
        raise PipelineError(msg) from error
    if not 0 <= percent <= 100:
        msg = f"{where} is {percent}, expected a percentage between 0 and 100"
        raise PipelineError(msg)
    return percent


def contradicted_average(row: Json) -> float | None:
    """What a row's categories give, in percent, where its printed average says otherwise."""
    values = [row[task] for task in FIRST_TASKS]
    if row["average"] is None or None in values:
        return None
    sizes = task_sizes(row["benchmark"])
    implied = sum(size * value for size, value in zip(sizes, values, strict=True)) / sum(sizes)
    return implied if abs(implied - row["average"]) > AVERAGE_TOLERANCE else None


def task_sizes(benchmark: str) -> tuple[int, int, int]:
    """Questions in sound, music and speech of a split; equal weights where they are not known."""
    for prefix in sorted(TASK_SIZES, key=len, reverse=True):
        if benchmark.startswith(prefix):
            return TASK_SIZES[prefix]
    return (1, 1, 1)


def num_published_questions(benchmark: str) -> int | None:
    """Questions of a published split; None where it is not known."""
    size = sum(task_sizes(benchmark))
    return size if size > len(FIRST_TASKS) else None


def paper_row(published: Iterable[Json], *, benchmark: str, method: str) -> Json | None:
    """The paper's own result of a training method on a benchmark, if it published one."""
    wanted = PAPER_METHODS.get(method)
    rows = (row for row in published if row["benchmark"] == benchmark)
    return next(
        (row for row in rows if row["source"] == PAPER_SOURCE and row["method"] == wanted), None
    )


def larger_split(benchmark: str) -> str:
    """The larger split of the same version, e.g. `mmau-test-original`; empty if it has none."""
    return benchmark.replace("-test-mini", "-test", 1) if "-test-mini" in benchmark else ""
