"""What stands on each page but the models' own: see reports/site/model_pages.py for those.

Templates are given the report and its numbers as they are; what they say of them they say there.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from reports.numbers.comparisons import Comparison, Pair, Section, leading_rows
from reports.numbers.leaderboard import LeaderboardRow
from reports.numbers.matrix import matrices
from reports.numbers.story import Story, stories
from reports.numbers.variants import variants
from reports.report import Report
from reports.sheets import BenchmarkSheet, flat
from reports.site import figures
from reports.site.boards import boards
from reports.site.exports import to_csv, to_json, to_latex, to_markdown
from reports.site.links import (
    Links,
    benchmark_slugs,
    browse_link,
    clip_address,
    submission_file,
)
from reports.site.question_data import QuestionData

MOST_LISTED = 40  # gained or lost questions on a page; the question page has them all
Clips = Mapping[str, Sequence[str | None]]
"""Addresses of the clips by the benchmark's key, in the order of its questions."""


class Page(NamedTuple):
    """One HTML file of the site."""

    file: str
    template: str
    title: str
    context: Mapping[str, object]
    """What the template is given."""
    script: str = ""
    """Further asset of ours, which loads data; empty: none."""


def leaderboard_files(rows: Sequence[LeaderboardRow]) -> dict[str, str]:
    """The exports beside the pages, by file name."""
    return {
        "leaderboard.md": to_markdown(rows),
        "leaderboard.tex": to_latex(rows),
        "leaderboard.csv": to_csv(rows),
        "leaderboard.json": to_json(rows),
    }


def overview_pages(
    report: Report,
    rows: Sequence[LeaderboardRow],
    exports: Mapping[str, str],
    comparisons: Sequence[Comparison],
    links: Links,
) -> list[Page]:
    """Each benchmark's first screen, leaderboard and pairs; the first is the index."""
    tables = {matrix.benchmark.key: matrix for matrix in matrices(report)}
    told = stories(report, tables.values())
    slugs = benchmark_slugs(report)
    files = {story.benchmark.name: f"benchmark-{slugs[story.benchmark.key]}.html" for story in told}
    files |= {story.benchmark.name: "index.html" for story in told[:1]}
    found = {board.benchmark: board for board in boards(report, rows, links.models)}
    shared = {
        "report": report,
        "links": links,
        "files": files,
        "exports": exports,
        "submission_file": submission_file,
    }
    asked = set(leading_rows(report))
    pages: list[Page] = []
    for story in told:
        name = story.benchmark.name
        context = {
            **shared,
            **_drawn(report, story),
            "story": story,
            "board": found.get(name),
            "matrix": tables.get(story.benchmark.key),
            "pairs": _pairs_on(comparisons, story.benchmark),
            "in_matrix": asked,
        }
        pages.append(Page(files[name], "index.html", "Overview", context))
    logged = next((training for training in report.trainings if training.curve.step), None)
    curves = figures.training_figures(report, logged) if logged else []
    bare = {**shared, "story": None, "board": None, "matrix": None, "pairs": {}, "curves": curves}
    return pages or [Page("index.html", "index.html", "Overview", bare)]


def _drawn(report: Report, story: Story) -> dict[str, object]:
    looks = figures.looks_of(report, story.named)
    return {
        "looks": looks,
        "accuracy": figures.accuracy(report, story.benchmark, story.scorer, looks),
        "variants": variants(report.trainings),
        "hours": [
            (looks[training.name], training.device_hours)
            for training in report.trainings
            if training.evaluated
        ],
    }


def _pairs_on(comparisons: Sequence[Comparison], benchmark: BenchmarkSheet) -> dict[Pair, Section]:
    """The pairs that were judged on it, each under its leading scorer."""
    found: dict[Pair, Section] = {}
    for comparison in comparisons:
        for section in comparison.sections:
            if section.benchmark.key == benchmark.key:
                found.setdefault(comparison.pair, section)
    return found


def compare_pages(
    report: Report, comparisons: Sequence[Comparison], links: Links, clips: Clips
) -> list[Page]:
    """One page for each pair of models worth comparing."""
    pages: list[Page] = []
    for comparison in comparisons:
        first, second = (report.label(key) for key in comparison.sections[0].keys)
        context = {
            "report": report,
            "first": first,
            "second": second,
            "comparison": comparison,
            "browse_link": browse_link,
            "clips": clips,
            "most_listed": MOST_LISTED,
        }
        title = f"{second} against {first}"
        pages.append(Page(links.comparisons[comparison.pair], "compare.html", title, context))
    return pages


def data_page(report: Report) -> Page:
    """The account of the training audio and of the rows made from it."""
    context = {"fetch": report.fetch, "rows": report.rows, "clip_address": clip_address}
    script = "clips.js" if report.fetch else ""
    return Page("data.html", "data.html", "Training audio", context, script)


def questions_page(benchmarks: Sequence[QuestionData]) -> Page:
    """The question browser."""
    context = {"start": {"benchmarks": [benchmark._asdict() for benchmark in benchmarks]}}
    script = "questions.js" if benchmarks else ""
    return Page("questions.html", "questions.html", "Questions", context, script)


def provenance_page(report: Report) -> Page:
    """Everything needed to make these numbers again."""
    context = {
        "report": report,
        "provenance": [line for line in flat(report.provenance.model_dump()) if line[1]],
        "prompts": {e.run.prompt.name: e.run.prompt for e in report.evaluations if e.run.prompt},
    }
    return Page("provenance.html", "provenance.html", "Provenance", context)
