"""A page for each training, and one for each model that was not trained here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reports.numbers.achievements import Achievement, achievements
from reports.numbers.comparisons import asked_of
from reports.numbers.groups import GroupRow, HeatCell, HeatRow, group_rows, heat_rows
from reports.numbers.leaderboard import method_name, method_of
from reports.numbers.statistics import Interval, newcombe
from reports.numbers.tally import tally
from reports.report import Report
from reports.sheets import BenchmarkSheet, EvaluationSheet, TrainingSheet
from reports.site.figures import Figure, accuracy_figures, training_figures
from reports.site.links import Links, question_link
from reports.site.pages import CURVES_CAPTION, Page
from storage.records.evaluation import ControlReport, Tally


@dataclass(frozen=True, slots=True)
class ControlRow:
    """A model without its audio, with another clip, or with its choices in another order."""

    name: str
    tally: Tally
    with_audio: Tally
    """The same model under the same scorer, asked properly."""
    tasks: Sequence[tuple[str, float]]
    """What the audio is worth in each task: accuracy minus the control's, a fraction."""
    consistency: float | None
    """Share of questions with the same answer as when asked properly."""


class HeatLine(NamedTuple):
    """A sub-category over the steps, each cell with the address of its questions."""

    row: HeatRow
    cells: Sequence[tuple[HeatCell, str]]


@dataclass(frozen=True, slots=True)
class Part:
    """One benchmark on a model's page."""

    benchmark: BenchmarkSheet
    scorer: str
    shown: EvaluationSheet
    """The evaluation whose groups are shown."""
    tally: Tally
    difficulties: Sequence[GroupRow]
    sub_categories: Sequence[GroupRow]
    controls: Sequence[ControlRow]
    control_report: ControlReport | None
    """What evaluation counted over the controls."""
    num_unparsed: int
    achievement: Achievement | None = None
    """Of a training's page."""
    against_paper: Interval | None = None
    figures: Sequence[Figure] = ()
    heat: Sequence[HeatLine] = ()
    steps: Sequence[int] = ()
    compare_link: str = ""

    @property
    def needs_audio(self) -> Tally | None:
        """Right answers to the questions that the start model gets wrong under silence."""
        counted = self.control_report and self.control_report.needs_audio.get(self.scorer)
        return counted if counted and counted.num_questions else None


def training_pages(report: Report, links: Links) -> list[Page]:
    """One page a training of the profile."""
    lines = achievements(report)
    pages: list[Page] = []
    for training in report.trainings:
        own = [line for line in lines if line.training == training]
        parts = [_training_part(report, line, index, links) for index, line in enumerate(own)]
        context = {
            "heading": training.name,
            "method": method_name(training.method, training.variant),
            "training": training,
            "parts": parts,
            "curves": training_figures(training, prefix="train"),
            "validation": _validation_figures(report, training),
            "caption": CURVES_CAPTION,
            "facts": parts[0].shown.run if parts else None,
        }
        pages.append(Page(links.trainings[training.name], "training.html", training.name, context))
    return pages


def _training_part(report: Report, line: Achievement, index: int, links: Links) -> Part:
    benchmark, scorer, start = line.benchmark, line.scorer, line.start
    steps = report.steps(benchmark, scorer, line.training)
    columns = [start, *steps] if start else steps
    return _part(
        report,
        benchmark,
        line.evaluation,
        scorer,
        achievement=line,
        figures=accuracy_figures(
            report, benchmark, scorer=scorer, training=line.training, prefix=f"part{index}"
        ),
        heat=_heat_lines(report, benchmark, columns, scorer),
        steps=[0 if evaluation is start else evaluation.step or 0 for evaluation in columns],
        compare_link=links.comparison(asked_of(start), asked_of(line.evaluation)) if start else "",
    )


def _part(  # noqa: PLR0913  one record of one section
    report: Report,
    benchmark: BenchmarkSheet,
    shown: EvaluationSheet,
    scorer: str,
    *,
    achievement: Achievement | None = None,
    figures: Sequence[Figure] = (),
    heat: Sequence[HeatLine] = (),
    steps: Sequence[int] = (),
    compare_link: str = "",
) -> Part:
    marks = shown.marks[scorer]
    start = achievement.start if achievement else None
    start_marks = start.marks[scorer] if start else None
    difficulties, sub_categories = (
        group_rows(benchmark.questions, key, marks=marks, start_marks=start_marks)
        for key in ("difficulty", "sub_category")
    )
    return Part(
        benchmark=benchmark,
        scorer=scorer,
        shown=shown,
        tally=tally(marks),
        difficulties=difficulties,
        sub_categories=sub_categories,
        controls=_controls(report, benchmark, shown, scorer),
        control_report=next(
            (controls for controls in report.controls if controls.key == shown.key), None
        ),
        num_unparsed=shown.parsed.count("0"),
        achievement=achievement,
        against_paper=_against_paper(achievement) if achievement else None,
        figures=figures,
        heat=heat,
        steps=steps,
        compare_link=compare_link,
    )


def _heat_lines(
    report: Report, benchmark: BenchmarkSheet, columns: Sequence[EvaluationSheet], scorer: str
) -> list[HeatLine]:
    labels = [report.label(evaluation.key) for evaluation in columns]
    rows = heat_rows(benchmark.questions, [evaluation.marks[scorer] for evaluation in columns])
    return [
        HeatLine(
            row,
            [
                (cell, question_link(benchmark.name, sub=row.name, b=label))
                for cell, label in zip(row.cells, labels, strict=True)
            ],
        )
        for row in rows
    ]


def _against_paper(line: Achievement) -> Interval | None:
    """Newcombe's interval of ours minus the paper's average, which has no answers by question."""
    if not line.paper or line.paper.average is None:
        return None
    total = line.tally.num_questions
    paper_correct = round(line.paper.average * total / 100)
    return newcombe(paper_correct, total, line.tally.num_correct, total)


def _controls(
    report: Report, benchmark: BenchmarkSheet, shown: EvaluationSheet, scorer: str
) -> list[ControlRow]:
    return [
        _control_row(benchmark, shown, evaluation, scorer)
        for evaluation in report.on(benchmark)
        if evaluation.key.control
        and evaluation.key.proper == shown.key
        and scorer in evaluation.marks
    ]


def _control_row(
    benchmark: BenchmarkSheet, shown: EvaluationSheet, control: EvaluationSheet, scorer: str
) -> ControlRow:
    marks, proper = control.marks[scorer], shown.marks[scorer]
    rows = group_rows(benchmark.questions, "task", marks=marks, start_marks=None)
    properly = group_rows(benchmark.questions, "task", marks=proper, start_marks=None)
    pairs = list(zip(control.answers, shown.answers, strict=True))
    return ControlRow(
        name=str(control.key.control),
        tally=tally(marks),
        with_audio=tally(proper),
        tasks=[
            (row.name, with_audio.tally.accuracy - row.tally.accuracy)
            for row, with_audio in zip(rows, properly, strict=True)
        ],
        consistency=sum(one == other for one, other in pairs) / len(pairs),
    )


def _validation_figures(report: Report, training: TrainingSheet) -> list[Figure]:
    """Accuracy by step on the held-out examples that chose the step, if there are any."""
    for benchmark in report.benchmarks:
        scorer = None if benchmark.is_test else report.leading_scorer(benchmark)
        if scorer:
            figures = accuracy_figures(
                report, benchmark, scorer=scorer, training=training, prefix="validation"
            )
            return figures[:1]
    return []


def other_model_pages(report: Report, links: Links) -> list[Page]:
    """One page a start model or further model: its accuracies, groups and controls."""
    models = dict.fromkeys(
        evaluation.model for evaluation in report.evaluations if evaluation.step is None
    )
    return [_other_model_page(report, model, links.models[model]) for model in models]


def _other_model_page(report: Report, model: str, file: str) -> Page:
    parts: list[Part] = []
    for benchmark in report.tests:
        scorer = report.leading_scorer(benchmark)
        judged = report.judged(benchmark, scorer) if scorer else []
        own = [evaluation for evaluation in judged if evaluation.model == model]
        parts += [_part(report, benchmark, evaluation, str(scorer)) for evaluation in own]
    run = next(evaluation.run for evaluation in report.evaluations if evaluation.model == model)
    context = {
        "heading": model,
        "method": method_of(run),
        "training": None,
        "parts": parts,
        "curves": [],
        "validation": [],
        "caption": "",
        "facts": run,
    }
    return Page(file, "training.html", model, context)
