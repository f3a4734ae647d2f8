"""Published accuracies to set ours beside: published.csv and the user's own file.

Numbers are kept as printed, in percent; where a printed average disagrees with its own categories
the row says so, and nothing is recomputed. A row belongs to one version of a benchmark, which is
part of the benchmark's name: 36 % of the items of MMAU's two versions differ, so they never share a
table.
"""

import csv
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from reports.config import ReportConfig
from reports.numbers.statistics import FIRST_TASKS
from reports.sheets import PublishedRow
from storage.benchmarks.published import PublishedBenchmark, find_published, list_published
from storage.errors import PipelineError

PUBLISHED_CSV = Path(__file__).with_name("published.csv")
PERCENTS = (*FIRST_TASKS, "average")
COLUMNS = ("benchmark", "version", "model", "method", *PERCENTS, "source", "date", "note")
# These may be left out, as `tasks`: `mix-sound-music=9.1;...`
FURTHER_COLUMNS = ("variant", "prompt", "weights")
AVERAGE_TOLERANCE = 0.35  # points; rounding and dropped items explain less, a copied number more


def read_published(config: ReportConfig) -> tuple[PublishedRow, ...]:
    """Published rows, then the user's own; empty where neither is asked for."""
    rows = read_rows(PUBLISHED_CSV) if config.published else []
    return (*rows, *(read_rows(config.rows) if config.rows else []))


def read_rows(path: Path) -> list[PublishedRow]:
    """Rows of a CSV file with the columns of published.csv.

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
        columns = ",".join(COLUMNS)
        msg = f"{path} is missing; report.rows names a CSV file with the columns {columns}"
        raise PipelineError(msg) from error


def _row(row: Mapping[str, str | None], where: str) -> PublishedRow:
    texts = {name: (row.get(name) or "").strip() for name in (*COLUMNS, *FURTHER_COLUMNS)}
    if not texts["benchmark"] or not texts["model"] or not texts["source"]:
        msg = f"{where} needs benchmark, model and source; a row without a source is not shown"
        raise PipelineError(msg)
    if not texts["benchmark"].endswith(texts["version"]):
        msg = f"{where} says version {texts['version']}, but its benchmark is {texts['benchmark']}"
        raise PipelineError(msg)
    printed = [part.partition("=") for part in (row.get("tasks") or "").split(";")]
    tasks = {name: text for name, _, text in printed if text not in {"", "-"}}
    missing = [name for name in PERCENTS if texts[name] in {"", "-"}]
    known = _known(texts["benchmark"])
    given = {name: text for name, text in texts.items() if name not in missing}
    try:
        found = PublishedRow.model_validate(
            {**given, "tasks": tasks, "num_questions": known and known.num_questions}
        )
    except ValidationError as error:
        first = error.errors()[0]
        column = ", ".join(str(part) for part in first["loc"])
        msg = (
            f"{where} column {column} is {first['input']!r}, "
            "expected a percentage between 0 and 100, like 64.50"
        )
        raise PipelineError(msg) from error
    return found.model_copy(update={"contradicted": contradicted_average(found)})


def contradicted_average(row: PublishedRow) -> float | None:
    """What a row's tasks give, in percent, where its printed average says otherwise.

    Only where the tasks shown are all that the average covers, and their sizes are known.
    """
    known = _known(row.benchmark)
    sizes = known.tasks if known else {}
    printed = [(row.percent(task), size) for task, size in sizes.items()]
    pairs = [(percent, size) for percent, size in printed if percent is not None and size]
    if row.average is None or not sizes or len(pairs) < len(sizes):
        return None
    implied = sum(size * percent for percent, size in pairs) / sum(size for _, size in pairs)
    return implied if abs(implied - row.average) > AVERAGE_TOLERANCE else None


@cache
def _known(benchmark: str) -> PublishedBenchmark | None:
    """The benchmark of a row, or another version of it: they are of one size."""
    found = [known for name in list_published() if (known := find_published(name))]
    exact = [known for known in found if known.name == benchmark]
    alike = [known for known in found if benchmark.startswith(known.family or known.name)]
    return max(exact or alike, key=lambda known: len(known.family or known.name), default=None)
