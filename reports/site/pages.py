"""What stands on each page but the models' own: see reports/site/model_pages.py for those."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from reports.numbers.achievements import Achievement, achievements
from reports.numbers.comparisons import Comparison, Section, asked_of, leading_rows
from reports.numbers.leaderboard import LeaderboardRow, method_name, method_of
from reports.numbers.matrix import Cell, Matrix, matrices
from reports.report import Report
from reports.sheets import flat
from reports.site.boards import boards
from reports.site.exports import DASH, to_csv, to_json, to_latex, to_markdown
from reports.site.figures import Figure, accuracy_figures
from reports.site.links import Links, browse_link, submission_file
from reports.site.question_data import QuestionData
from storage.records.evaluation import Tally
from storage.records.question import Question

MOST_GROUPS = 2  # of four charts each on the overview; the others are on the trainings' pages
MOST_LISTED = 40  # gained or lost questions on a page; the question page has them all
CURVES_CAPTION = (
    "Bands are 95 % intervals of one step each, not of the whole curve, and neighbouring steps "
    "answer the same questions: two models are compared on their comparison page. "
    "Step 0 is the start model, the filled point the step that leads."
)


class Page(NamedTuple):
    """One HTML file of the site."""

    file: str
    template: str
    title: str
    context: Mapping[str, object]
    """What the template is given."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One training on one benchmark, in one number."""

    title: str
    achievement: Achievement
    file: str
    compare_file: str
    """Empty without a start model."""


class CurveGroup(NamedTuple):
    """Charts under one heading; empty: none."""

    title: str
    figures: Sequence[Figure]


@dataclass(frozen=True, slots=True)
class ModelLine:
    """A training or a model in the list of all."""

    name: str
    file: str
    method: str
    start: str
    num_checkpoints: str
    benchmarks: str


@dataclass(frozen=True, slots=True)
class Withheld:
    """Predictions to submit for a score."""

    benchmark: str
    model: str
    prompt: str
    num_questions: int
    num_parsed: int
    file: str
    """From the experiment's folder."""


class ComparisonLine(NamedTuple):
    """A comparison in the list of all."""

    file: str
    title: str
    section: Section
    is_in_matrix: bool


class MatrixRow(NamedTuple):
    """A leading row against every other."""

    label: str
    tally: Tally
    cells: Sequence[tuple[Cell, str] | None]
    """By column, with the page of the pair; mirrored below the diagonal, None on it."""


class ShownMatrix(NamedTuple):
    """Every pair of leading rows on one benchmark."""

    matrix: Matrix
    rows: Sequence[MatrixRow]
    resolution: str


class Flip(NamedTuple):
    """A question that one of two models got right."""

    question: Question
    link: str


@dataclass(frozen=True, slots=True)
class ShownSection:
    """A comparison's section with its addresses."""

    section: Section
    gained: Sequence[Flip]
    lost: Sequence[Flip]
    browse_link: str


def leaderboard_files(rows: Sequence[LeaderboardRow]) -> dict[str, str]:
    """The exports beside the pages, by file name."""
    return {
        "leaderboard.md": to_markdown(rows),
        "leaderboard.tex": to_latex(rows),
        "leaderboard.csv": to_csv(rows),
        "leaderboard.json": to_json(rows),
    }


def index_page(
    report: Report,
    rows: Sequence[LeaderboardRow],
    exports: Mapping[str, str],
    comparisons: Sequence[Comparison],
    links: Links,
) -> Page:
    """The overview: headlines, leaderboards, accuracy by step, models, the fetch account.

    Args:
        report: The report.
        rows: Of `leaderboard.rows(report)`.
        exports: Of `leaderboard_files(rows)`.
        comparisons: Of `comparisons.compare(report)`.
        links: The pages.
    """
    lines = achievements(report)
    context = {
        "summary": _summary(report),
        "tiles": [_tile(line, links) for line in lines],
        "boards": boards(report, rows, links.models),
        "withheld": withheld(report),
        "exports": exports,
        "curves": _curves(report, lines),
        "caption": CURVES_CAPTION,
        "models": _models(report, links),
        "matrices": [_shown_matrix(report, matrix, links) for matrix in matrices(report)],
        "comparisons": _comparison_lines(report, comparisons, links),
        "apart": report.apart,
        "fetch": report.fetch,
    }
    return Page("index.html", "index.html", "Overview", context)


def _summary(report: Report) -> str:
    trainings = [training for training in report.trainings if training.evaluated]
    benchmarks = [
        f"{benchmark.name} ({len(benchmark.questions)} questions"
        f"{', answers withheld' if benchmark.is_withheld else ''})"
        for benchmark in report.tests
    ]
    models = len({evaluation.model for evaluation in report.evaluations})
    return (
        f"{_count(models, 'model')} of {_count(len(trainings), 'training')} "
        f"and their start models, on {', '.join(benchmarks)}."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _tile(line: Achievement, links: Links) -> Tile:
    training, evaluation = line.training, line.evaluation
    method = method_name(training.method, training.variant)
    start = line.start
    return Tile(
        title=f"{method} · {line.benchmark.name}",
        achievement=line,
        file=links.trainings[training.name],
        compare_file=links.comparison(asked_of(start), asked_of(evaluation)) if start else "",
    )


def _comparison_lines(
    report: Report, comparisons: Sequence[Comparison], links: Links
) -> list[ComparisonLine]:
    rows = set(leading_rows(report))
    return [
        ComparisonLine(
            file=links.comparisons[comparison.pair],
            title=title_of(report, comparison),
            section=comparison.sections[0],
            is_in_matrix=set(comparison.pair) <= rows,
        )
        for comparison in comparisons
    ]


def _shown_matrix(report: Report, matrix: Matrix, links: Links) -> ShownMatrix:
    def shown(row: int, column: int) -> tuple[Cell, str] | None:
        if row == column:
            return None
        place = (min(row, column), max(row, column))
        second, first = (matrix.asked[index] for index in place)
        return matrix.cells[place], links.comparison(first, second)

    size = range(len(matrix.keys))
    gaps = [cell.test.detectable for cell in matrix.cells.values()]
    found = [gap for gap in gaps if gap]
    ends = f"{100 * min(found):.1f} to {100 * max(found):.1f}" if found else ""
    return ShownMatrix(
        matrix=matrix,
        rows=[
            MatrixRow(
                report.label(key), matrix.tallies[row], [shown(row, column) for column in size]
            )
            for row, key in enumerate(matrix.keys)
        ],
        resolution=f"Differences of {ends} points are found with 80 % power; smaller ones can be "
        "real and missed."
        if ends
        else "",
    )


def _curves(report: Report, lines: Sequence[Achievement]) -> list[CurveGroup]:
    """Charts by training and benchmark; where there are many, the averages in one group."""
    groups: list[CurveGroup] = []
    averages: list[Figure] = []
    for index, line in enumerate(lines):
        figures = accuracy_figures(
            report,
            line.benchmark,
            scorer=line.scorer,
            training=line.training,
            prefix=f"curve{index}",
        )
        title = f"{line.training.name} on {line.benchmark.name}"
        groups.append(CurveGroup(title, figures))
        averages += [replace(figure, note=title) for figure in figures[:1]]
    return groups if len(groups) <= MOST_GROUPS else [CurveGroup("", averages)]


def _models(report: Report, links: Links) -> list[ModelLine]:
    """Trainings in the profile's order, then every other model."""
    names = {benchmark.key: benchmark.name for benchmark in report.benchmarks}
    found: list[ModelLine] = []
    for training in report.trainings:
        own = [
            evaluation for evaluation in report.evaluations if evaluation.training == training.name
        ]
        steps = {evaluation.step for evaluation in own} or training.checkpoint_steps
        found.append(
            ModelLine(
                name=training.name,
                file=links.trainings[training.name],
                method=method_name(training.method, training.variant),
                start=training.start_model,
                num_checkpoints=str(len(steps)),
                benchmarks=", ".join(
                    dict.fromkeys(names[evaluation.key.benchmark] for evaluation in own)
                )
                or "not evaluated",
            )
        )
    others = [evaluation for evaluation in report.evaluations if evaluation.step is None]
    for model in dict.fromkeys(evaluation.model for evaluation in others):
        own = [evaluation for evaluation in others if evaluation.model == model]
        found.append(
            ModelLine(
                name=model,
                file=links.models[model],
                method=method_of(own[0].run),
                start=DASH,
                num_checkpoints=DASH,
                benchmarks=", ".join(
                    dict.fromkeys(names[evaluation.key.benchmark] for evaluation in own)
                ),
            )
        )
    return found


def withheld(report: Report) -> list[Withheld]:
    """What was predicted for benchmarks that keep their answers, a row a model and prompt."""
    return [
        Withheld(
            benchmark=report.benchmark(evaluation.key.benchmark).name,
            model=evaluation.model,
            prompt=evaluation.prompt,
            num_questions=len(evaluation.parsed),
            num_parsed=evaluation.parsed.count("1"),
            file=submission_file(evaluation),
        )
        for evaluation in report.withheld
    ]


def title_of(report: Report, comparison: Comparison) -> str:
    """`grpo-step-100 against Qwen2-Audio-7B-Instruct`."""
    first, second = (report.label(key) for key in comparison.sections[0].keys)
    return f"{second} against {first}"


def compare_pages(report: Report, comparisons: Sequence[Comparison], links: Links) -> list[Page]:
    """One page for each pair of models worth comparing."""
    pages: list[Page] = []
    for comparison in comparisons:
        first, second = (report.label(key) for key in comparison.sections[0].keys)
        context = {
            "first": first,
            "second": second,
            "reason": comparison.reason,
            "sections": [_shown(report, section) for section in comparison.sections],
            "most_listed": MOST_LISTED,
        }
        file, title = links.comparisons[comparison.pair], title_of(report, comparison)
        pages.append(Page(file, "compare.html", title, context))
    return pages


def _shown(report: Report, section: Section) -> ShownSection:
    def flips(questions: Sequence[Question]) -> list[Flip]:
        return [
            Flip(question, browse_link(report, section, id=question.id)) for question in questions
        ]

    return ShownSection(
        section=section,
        gained=flips(section.gained),
        lost=flips(section.lost),
        browse_link=browse_link(report, section, show="flipped"),
    )


def data_page(report: Report) -> Page:
    """The account of the training audio and of the rows made from it."""
    context = {"fetch": report.fetch, "rows": report.rows}
    return Page("data.html", "data.html", "Training audio", context)


def questions_page(benchmarks: Sequence[QuestionData]) -> Page:
    """The question browser.

    Args:
        benchmarks: Of `question_data.write_question_data`.
    """
    context = {"start": {"benchmarks": [benchmark._asdict() for benchmark in benchmarks]}}
    return Page("questions.html", "questions.html", "Questions", context)


def provenance_page(report: Report) -> Page:
    """Everything needed to make these numbers again."""
    names = {benchmark.key: benchmark.name for benchmark in report.benchmarks}
    context = {
        "provenance": [line for line in flat(report.provenance.model_dump()) if line[1]],
        "benchmarks": report.benchmarks,
        "evaluations": report.evaluations,
        "names": names,
        "prompts": {e.run.prompt.name: e.run.prompt for e in report.evaluations if e.run.prompt},
        "seeds": [(training.name, training.seed) for training in report.trainings],
        "config": report.profile,
    }
    return Page("provenance.html", "provenance.html", "Provenance", context)
