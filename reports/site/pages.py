"""What stands on each page.

Templates are given the report and its numbers as they are; what they say of them they say there.
"""

from collections.abc import Mapping, Sequence
from operator import eq
from typing import NamedTuple

from reports.numbers.achievements import Achievement, achievements, other_models
from reports.numbers.comparisons import (
    Comparison,
    Pair,
    Section,
    compare,
    leading_rows,
    matrices,
)
from reports.numbers.leaderboard import LeaderboardRow, method_name, method_of
from reports.numbers.statistics import Interval, newcombe
from reports.numbers.story import Story, stories, variants
from reports.numbers.tally import GroupRow, group_rows, heat_rows, tally
from reports.report import Report
from reports.sheets import BenchmarkSheet, EvaluationSheet, TrainingSheet, flat
from reports.site.boards import boards
from reports.site.figures import Accuracy, accuracy, looks_of, training_figures
from reports.site.html import Page
from reports.site.links import Links, benchmark_slugs, clip_address, links_of, question_link
from reports.site.question_data import QuestionData
from storage.records.evaluation import ControlReport, EvaluationRun, Tally

MOST_LISTED = 40  # gained or lost questions on a page; the question page has them all
Clips = Mapping[str, Sequence[str | None]]
"""Addresses of the clips by the benchmark's key, in the order of its questions."""


class ControlRow(NamedTuple):
    """A model without its audio, with another clip, or with its choices in another order."""

    name: str
    tally: Tally
    tasks: Mapping[str, float]
    """What the audio is worth in each task: accuracy minus the control's, a fraction."""
    consistency: float
    """Share of questions with the same answer as when asked properly."""


class Part(NamedTuple):
    """One benchmark on a model's page."""

    line: Achievement
    """Whose evaluation is shown."""
    difficulties: Sequence[GroupRow]
    sub_categories: Sequence[GroupRow]
    controls: Sequence[ControlRow]
    control_report: ControlReport | None
    """What evaluation counted over the controls."""
    against_paper: Interval | None
    """Newcombe's, of ours minus the paper's average, which has no answers by question."""
    accuracy: Accuracy | None
    heat: Mapping[str, Sequence[Tally]]
    """By sub-category and step."""
    steps: Mapping[int, str]
    """Labels on the question page by step; 0 is the start model."""
    compare_link: str

    @property
    def needs_audio(self) -> Tally | None:
        """Right answers to the questions that the start model gets wrong under silence."""
        counted = self.control_report and self.control_report.needs_audio.get(self.line.scorer)
        return counted if counted and counted.num_questions else None


def make_pages(
    report: Report,
    rows: Sequence[LeaderboardRow],
    exports: Mapping[str, str],
    questions: Sequence[QuestionData],
    clips: Clips,
) -> list[Page]:
    """Every page of the site."""
    comparisons = compare(report)
    links = links_of(report, comparisons)
    browsed = {"start": {"benchmarks": [benchmark._asdict() for benchmark in questions]}}
    fetched = {"fetch": report.fetch, "rows": report.rows, "clip_address": clip_address}
    made = {
        "report": report,
        "provenance": [line for line in flat(report.provenance.model_dump()) if line[1]],
        "prompts": {e.run.prompt.name: e.run.prompt for e in report.evaluations if e.run.prompt},
    }
    loads = ("questions.js" if questions else "", "clips.js" if report.fetch else "")
    return [
        *_overview_pages(report, rows, exports, comparisons, links),
        *_model_pages(report, links),
        *(_compare_page(report, comparison, links, clips) for comparison in comparisons),
        Page("questions.html", "questions.html", "Questions", browsed, loads[0]),
        Page("data.html", "data.html", "Training audio", fetched, loads[1]),
        Page("provenance.html", "provenance.html", "Provenance", made),
    ]


def _overview_pages(
    report: Report,
    rows: Sequence[LeaderboardRow],
    exports: Mapping[str, str],
    comparisons: Sequence[Comparison],
    links: Links,
) -> list[Page]:
    """Each benchmark's first screen, leaderboard and pairs; the first is the index."""
    tables = matrices(report)
    told = stories(report, tables)
    slugs = benchmark_slugs(report)
    files = {story.benchmark.name: f"benchmark-{slugs[story.benchmark.key]}.html" for story in told}
    files |= {story.benchmark.name: "index.html" for story in told[:1]}
    shared = {"report": report, "links": links, "files": files, "exports": exports}
    shared |= {"in_matrix": {*leading_rows(report)}, "variants": variants(report.trainings)}
    pages: list[Page] = []
    for story in told:
        benchmark, file = story.benchmark, files[story.benchmark.name]
        context = {
            **shared,
            **_drawn(report, story),
            "story": story,
            "board": boards(report, benchmark, rows, links.models),
            "matrix": tables.get(benchmark.key),
            "pairs": _pairs_on(comparisons, benchmark),
        }
        pages.append(Page(file, "index.html", "Overview", context))
    logged = next((training for training in report.trainings if training.curve.step), None)
    curves = training_figures(report, logged) if logged else []
    bare = {**shared, "story": None, "board": None, "matrix": None, "pairs": {}, "curves": curves}
    return pages or [Page("index.html", "index.html", "Overview", bare)]


def _drawn(report: Report, story: Story) -> dict[str, object]:
    looks = looks_of(report, story.named)
    evaluated = [training for training in report.trainings if training.evaluated]
    return {
        "looks": looks,
        "accuracy": accuracy(report, story.benchmark, story.scorer, looks),
        "hours": [(looks[training.name], training.device_hours) for training in evaluated],
    }


def _pairs_on(comparisons: Sequence[Comparison], benchmark: BenchmarkSheet) -> dict[Pair, Section]:
    """The pairs that were judged on it, each under its leading scorer."""
    found: dict[Pair, Section] = {}
    for comparison in comparisons:
        for section in comparison.sections:
            if section.benchmark.key == benchmark.key:
                found.setdefault(comparison.pair, section)
    return found


def _compare_page(report: Report, comparison: Comparison, links: Links, clips: Clips) -> Page:
    first, second = (report.label(key) for key in comparison.sections[0].keys)
    context = {
        "report": report,
        "first": first,
        "second": second,
        "comparison": comparison,
        "question_link": question_link,
        "clips": clips,
        "most_listed": MOST_LISTED,
    }
    title = f"{second} against {first}"
    return Page(links.comparisons[comparison.pair], "compare.html", title, context)


def _model_pages(report: Report, links: Links) -> list[Page]:
    """One page a training of the profile, and one a model that was not trained here."""
    trained, others = achievements(report), other_models(report)
    pages: list[Page] = []
    for training in report.trainings:
        lines = [line for line in trained if line.training is training]
        run = lines[0].evaluation.run if lines else None
        pages.append(_model_page(report, links, training.name, lines, run, training))
    runs: dict[str, EvaluationRun] = {}
    for evaluation in report.evaluations:
        if evaluation.step is None:
            runs.setdefault(evaluation.model, evaluation.run)
    for model, run in runs.items():
        lines = [line for line in others if line.evaluation.model == model]
        pages.append(_model_page(report, links, model, lines, run))
    return pages


def _model_page(
    report: Report,
    links: Links,
    heading: str,
    lines: Sequence[Achievement],
    run: EvaluationRun | None,
    training: TrainingSheet | None = None,
) -> Page:
    file = links.trainings[heading] if training else links.models[heading]
    method = method_of(run) if run else ""
    context = {
        "heading": heading,
        "method": method_name(training.method, training.variant) if training else method,
        "training": training,
        "parts": [_part(report, line, links) for line in lines],
        "curves": training_figures(report, training) if training else [],
        "looks": looks_of(report) if training else {},
        "validation": _validation(report) if training else None,
        "question_link": question_link,
        "facts": run,
    }
    return Page(file, "training.html", heading, context)


def _part(report: Report, line: Achievement, links: Links) -> Part:
    benchmark, scorer, start, shown = line.benchmark, line.scorer, line.start, line.evaluation
    checkpoints = report.steps(benchmark, scorer, line.training) if line.training else []
    steps = ({0: start} if start else {}) | {each.step or 0: each for each in checkpoints}
    difficulties, sub_categories = (
        group_rows(benchmark.questions, key, line.marks, start and start.marks[scorer])
        for key in ("difficulty", "sub_category")
    )
    paper = None
    if line.paper and line.paper.average is not None:
        total = line.tally.num_questions
        paper = newcombe(Tally(round(line.paper.average * total / 100), total), line.tally)
    return Part(
        line=line,
        difficulties=difficulties,
        sub_categories=sub_categories,
        controls=_controls(report, line),
        control_report=next((each for each in report.controls if each.key == shown.key), None),
        against_paper=paper,
        accuracy=accuracy(report, benchmark, scorer, looks_of(report)) if line.training else None,
        heat=heat_rows(benchmark.questions, [each.marks[scorer] for each in steps.values()]),
        steps={step: report.label(each.key) for step, each in steps.items()},
        compare_link=links.comparison(start.asked, shown.asked) if start else "",
    )


def _controls(report: Report, line: Achievement) -> list[ControlRow]:
    questions, scorer, shown = line.benchmark.questions, line.scorer, line.evaluation
    properly = group_rows(questions, "task", line.marks)

    def row(control: EvaluationSheet) -> ControlRow:
        rows = group_rows(questions, "task", control.marks[scorer])
        same = sum(map(eq, control.answers, shown.answers))
        return ControlRow(
            name=str(control.key.control),
            tally=tally(control.marks[scorer]),
            tasks={
                heard.name: heard.tally.accuracy - silent.tally.accuracy
                for heard, silent in zip(properly, rows, strict=True)
            },
            consistency=same / len(questions),
        )

    return [
        row(control)
        for control in report.on(line.benchmark)
        if control.key.control and control.key.proper == shown.key and scorer in control.marks
    ]


def _validation(report: Report) -> Accuracy | None:
    """Accuracy by step on the held-out examples that chose the step, if there are any."""
    for benchmark in report.benchmarks:
        scorer = None if benchmark.is_test else report.leading_scorer(benchmark)
        if scorer:
            return accuracy(report, benchmark, scorer, looks_of(report))
    return None
