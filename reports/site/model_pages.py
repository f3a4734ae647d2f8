"""A page for each training, and one for each model that was not trained here."""

from collections.abc import Sequence
from dataclasses import dataclass

from reports.numbers.achievements import Achievement, achievements, other_models
from reports.numbers.comparisons import asked_of
from reports.numbers.groups import GroupRow, group_rows, heat_rows
from reports.numbers.leaderboard import method_name, method_of
from reports.numbers.statistics import Interval, newcombe
from reports.numbers.tally import tally
from reports.report import Report
from reports.sheets import EvaluationSheet
from reports.site.figures import Accuracy, accuracy, looks_of, training_figures
from reports.site.links import Links, question_link
from reports.site.pages import Page
from storage.records.controls import ControlReport
from storage.records.evaluation import Tally


@dataclass(frozen=True, slots=True)
class ControlRow:
    """A model without its audio, with another clip, or with its choices in another order."""

    name: str
    tally: Tally
    tasks: Sequence[tuple[str, float]]
    """What the audio is worth in each task: accuracy minus the control's, a fraction."""
    consistency: float
    """Share of questions with the same answer as when asked properly."""


@dataclass(frozen=True, slots=True)
class Part:
    """One benchmark on a model's page."""

    line: Achievement
    """Whose evaluation is shown."""
    difficulties: Sequence[GroupRow]
    sub_categories: Sequence[GroupRow]
    controls: Sequence[ControlRow]
    control_report: ControlReport | None
    """What evaluation counted over the controls."""
    against_paper: Interval | None
    accuracy: Accuracy | None
    heat: dict[str, list[Tally]]
    """By sub-category and step."""
    labels: Sequence[str]
    """Of the steps' evaluations on the question page."""
    steps: Sequence[int]
    compare_link: str

    @property
    def needs_audio(self) -> Tally | None:
        """Right answers to the questions that the start model gets wrong under silence."""
        counted = self.control_report and self.control_report.needs_audio.get(self.line.scorer)
        return counted if counted and counted.num_questions else None


def training_pages(report: Report, links: Links) -> list[Page]:
    """One page a training of the profile."""
    lines = achievements(report)
    looks = looks_of(report)
    pages: list[Page] = []
    for training in report.trainings:
        own = [line for line in lines if line.training == training]
        parts = [_part(report, line, links) for line in own]
        context = {
            "heading": training.name,
            "method": method_name(training.method, training.variant),
            "training": training,
            "parts": parts,
            "curves": training_figures(report, training),
            "looks": looks,
            "validation": _validation(report),
            "question_link": question_link,
            "facts": parts[0].line.evaluation.run if parts else None,
        }
        pages.append(Page(links.trainings[training.name], "training.html", training.name, context))
    return pages


def _part(report: Report, line: Achievement, links: Links) -> Part:
    benchmark, scorer, start = line.benchmark, line.scorer, line.start
    steps = report.steps(benchmark, scorer, line.training) if line.training else []
    columns = [start, *steps] if start else steps
    difficulties, sub_categories = (
        group_rows(
            benchmark.questions,
            key,
            marks=line.marks,
            start_marks=start.marks[scorer] if start else None,
        )
        for key in ("difficulty", "sub_category")
    )
    shown = line.evaluation
    return Part(
        line=line,
        difficulties=difficulties,
        sub_categories=sub_categories,
        controls=_controls(report, line),
        control_report=next(
            (controls for controls in report.controls if controls.key == shown.key), None
        ),
        against_paper=_against_paper(line),
        accuracy=accuracy(report, benchmark, scorer, looks_of(report)) if line.training else None,
        heat=heat_rows(benchmark.questions, [evaluation.marks[scorer] for evaluation in columns]),
        labels=[report.label(evaluation.key) for evaluation in columns],
        steps=[0 if evaluation is start else evaluation.step or 0 for evaluation in columns],
        compare_link=links.comparison(asked_of(start), asked_of(shown)) if start else "",
    )


def _against_paper(line: Achievement) -> Interval | None:
    """Newcombe's interval of ours minus the paper's average, which has no answers by question."""
    if not line.paper or line.paper.average is None:
        return None
    total = line.tally.num_questions
    paper_correct = round(line.paper.average * total / 100)
    return newcombe(paper_correct, total, line.tally.num_correct, total)


def _controls(report: Report, line: Achievement) -> list[ControlRow]:
    return [
        _control_row(line, evaluation)
        for evaluation in report.on(line.benchmark)
        if evaluation.key.control
        and evaluation.key.proper == line.evaluation.key
        and line.scorer in evaluation.marks
    ]


def _control_row(line: Achievement, control: EvaluationSheet) -> ControlRow:
    marks, shown = control.marks[line.scorer], line.evaluation
    rows, properly = (
        group_rows(line.benchmark.questions, "task", marks=each, start_marks=None)
        for each in (marks, line.marks)
    )
    pairs = list(zip(control.answers, shown.answers, strict=True))
    return ControlRow(
        name=str(control.key.control),
        tally=tally(marks),
        tasks=[
            (row.name, with_audio.tally.accuracy - row.tally.accuracy)
            for row, with_audio in zip(rows, properly, strict=True)
        ],
        consistency=sum(one == other for one, other in pairs) / len(pairs),
    )


def _validation(report: Report) -> Accuracy | None:
    """Accuracy by step on the held-out examples that chose the step, if there are any."""
    for benchmark in report.benchmarks:
        scorer = None if benchmark.is_test else report.leading_scorer(benchmark)
        if scorer:
            return accuracy(report, benchmark, scorer, looks_of(report))
    return None


def other_model_pages(report: Report, links: Links) -> list[Page]:
    """One page a start model or further model: its accuracies, groups and controls."""
    lines: list[Achievement] = []
    for benchmark in report.tests:
        scorer = report.leading_scorer(benchmark)
        lines += other_models(report, benchmark, scorer) if scorer else []
    pages: list[Page] = []
    runs = [evaluation.run for evaluation in report.evaluations if evaluation.step is None]
    for model, run in {run.key.model: run for run in reversed(runs)}.items():
        own = [line for line in lines if line.evaluation.model == model]
        context: dict[str, object] = {
            "heading": model,
            "method": method_of(run),
            "training": None,
            "parts": [_part(report, line, links) for line in own],
            "curves": [],
            "looks": {},
            "validation": None,
            "question_link": question_link,
            "facts": run,
        }
        pages.append(Page(links.models[model], "training.html", model, context))
    return pages[::-1]
