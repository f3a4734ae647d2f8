"""Published accuracies to set ours beside: published.csv and the user's own file.

Numbers are kept as printed, in percent; where a printed average disagrees with its own categories
the row says so, and nothing is recomputed. A row belongs to one version of a benchmark, which is
part of the benchmark's name: 36 % of the items of MMAU's two versions differ, so they never share a
table.
"""

import csv
from collections.abc import Iterable
from pathlib import Path

from reports.config import ReportConfig
from reports.numbers.tally import FIRST_TASKS
from reports.sheets import PublishedRow, TrainingSheet
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
FURTHER_COLUMNS = ("variant", "prompt")  # may be left out
TASK_SIZES = {"mmau-test-mini": (333, 334, 333), "mmau-test": (3000, 3000, 3000)}
AVERAGE_TOLERANCE = 0.35  # points; rounding and dropped items explain less, a copied number more
PAPER_SOURCE = "R1-AQA paper, arXiv 2503.11197"


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
        msg = (
            f"{path} is missing; report.rows names a CSV file with the columns {','.join(COLUMNS)}"
        )
        raise PipelineError(msg) from error


def _row(row: dict[str, str | None], where: str) -> PublishedRow:
    texts = {name: (row.get(name) or "").strip() for name in (*COLUMNS, *FURTHER_COLUMNS)}
    if not texts["benchmark"] or not texts["model"] or not texts["source"]:
        msg = f"{where} needs benchmark, model and source; a row without a source is not shown"
        raise PipelineError(msg)
    if not texts["benchmark"].endswith(texts["version"]):
        msg = f"{where} says version {texts['version']}, but its benchmark is {texts['benchmark']}"
        raise PipelineError(msg)
    sound, music, speech, average = (
        _percent(texts.pop(name), f"{where} column {name}") for name in (*FIRST_TASKS, "average")
    )
    return PublishedRow(**texts, sound=sound, music=music, speech=speech, average=average)


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


def contradicted_average(row: PublishedRow) -> float | None:
    """What a row's categories give, in percent, where its printed average says otherwise."""
    if row.average is None or row.sound is None or row.music is None or row.speech is None:
        return None
    sizes = task_sizes(row.benchmark)
    percents = (row.sound, row.music, row.speech)
    implied = sum(size * value for size, value in zip(sizes, percents, strict=True)) / sum(sizes)
    return implied if abs(implied - row.average) > AVERAGE_TOLERANCE else None


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


def paper_row(
    published: Iterable[PublishedRow], *, benchmark: str, training: TrainingSheet
) -> PublishedRow | None:
    """The paper's own result of the same method, variant and prompt, if it published one."""
    for row in published:
        is_papers = row.source == PAPER_SOURCE and row.benchmark == benchmark
        is_same = (row.variant, row.prompt) == (training.variant, training.prompt)
        if is_papers and is_same and training.method.upper() in row.method.split():
            return row
    return None


def larger_split(benchmark: str) -> str:
    """The larger split of the same version, e.g. `mmau-test-original`; empty if it has none."""
    return benchmark.replace("-test-mini", "-test", 1) if "-test-mini" in benchmark else ""
