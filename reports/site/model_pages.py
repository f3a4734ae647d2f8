"""A page for each training, and one for each model that was not trained here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reports.numbers.achievements import Headline, headlines, leading_scorer
from reports.numbers.groups import GroupRow, HeatRow, group_rows, heat_rows
from reports.numbers.leaderboard import METHOD_NAMES, evaluations_of, tests_of
from reports.numbers.statistics import Interval, newcombe
from reports.numbers.tally import Tally, tally
from reports.site.figures import Figure, accuracy_figures, training_figures
from reports.site.links import compare_file, model_files, training_files
from reports.site.pages import CURVES_CAPTION, Page

Json = dict[str, Any]


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


@dataclass(frozen=True, slots=True)
class Part:
    """One benchmark on a model's page."""

    benchmark: str
    scorer: str
    shown: Json
    """The evaluation whose groups are shown."""
    tally: Tally
    headline: Headline | None
    against_paper: Interval | None
    figures: Sequence[Figure]
    difficulties: Sequence[GroupRow]
    sub_categories: Sequence[GroupRow]
    heat: Sequence[HeatRow]
    steps: Sequence[int]
    controls: Sequence[ControlRow]
    needs_audio: Tally | None
    """Right answers to the questions that the start model gets wrong under silence."""
    order: Json | None
    """Answers that stay the same in every order of the choices, as counted by evaluation."""
    compare_link: str
    num_unparsed: int


def training_pages(report: Json) -> list[Page]:
    """One page a training of the profile."""
    files = training_files(report)
    lines = headlines(report)
    pages: list[Page] = []
    for training in report["trainings"]:
        own = [line for line in lines if line.training == training["name"]]
        parts = [_training_part(report, training, line, index) for index, line in enumerate(own)]
        context = {
            "heading": training["name"],
            "method": METHOD_NAMES.get(training["method"], training["method"]),
            "training": training,
            "parts": parts,
            "curves": training_figures(training, prefix="train"),
            "validation": _validation_figures(report, training),
            "caption": CURVES_CAPTION,
            "facts": parts[0].shown if parts else None,
        }
        name = training["name"]
        pages.append(Page(files[name], "training.html", name, context))
    return pages


def _training_part(report: Json, training: Json, line: Headline, index: int) -> Part:
    benchmark = next(one for one in report["benchmarks"] if one["name"] == line.benchmark)
    steps = evaluations_of(report, line.benchmark, scorer=line.scorer, training=training["name"])
    steps = [one for one in steps if one["prompt"] == line.evaluation["prompt"]]
    columns = [line.start, *steps] if line.start else steps
    start_marks = line.start["marks"][line.scorer] if line.start else None
    return _part(
        report,
        benchmark,
        line.evaluation,
        scorer=line.scorer,
        start_marks=start_marks,
        headline=line,
        figures=accuracy_figures(
            report, benchmark, scorer=line.scorer, training=training, prefix=f"part{index}"
        ),
        heat=heat_rows(report, benchmark, columns, scorer=line.scorer),
        steps=[0 if one is line.start else one["step"] for one in columns],
    )


def _part(  # noqa: PLR0913  one record of one section
    report: Json,
    benchmark: Json,
    shown: Json,
    *,
    scorer: str,
    start_marks: str | None = None,
    headline: Headline | None = None,
    figures: Sequence[Figure] = (),
    heat: Sequence[HeatRow] = (),
    steps: Sequence[int] = (),
) -> Part:
    marks = shown["marks"][scorer]
    start = headline.start if headline else None
    compare = compare_file(report, start["model"], shown["model"]) if start else ""
    return Part(
        benchmark=benchmark["name"],
        scorer=scorer,
        shown=shown,
        tally=tally(marks),
        headline=headline,
        against_paper=_against_paper(headline) if headline else None,
        figures=figures,
        difficulties=group_rows(benchmark, "difficulty", marks=marks, start_marks=start_marks),
        sub_categories=group_rows(benchmark, "sub_category", marks=marks, start_marks=start_marks),
        heat=heat,
        steps=steps,
        controls=_controls(report, benchmark, shown, scorer=scorer),
        needs_audio=_needs_audio(_control_report(report, shown), scorer),
        order=_control_report(report, shown).get("order"),
        compare_link=compare,
        num_unparsed=shown["parsed"].count("0"),
    )


def _against_paper(line: Headline) -> Interval | None:
    """Newcombe's interval of ours minus the paper's average, which has no answers by question."""
    if not line.paper or line.paper["average"] is None:
        return None
    total = line.tally.num_questions
    paper_correct = round(line.paper["average"] * total / 100)
    return newcombe(paper_correct, total, line.tally.num_correct, total)


def _controls(report: Json, benchmark: Json, shown: Json, *, scorer: str) -> list[ControlRow]:
    own = [
        one
        for one in report["evaluations"]
        if (one["model"], one["benchmark"]) == (shown["model"], shown["benchmark"])
        and one["prompt"] == shown["prompt"]
        and one["control"]
        and scorer in one["marks"]
    ]
    return [_control_row(benchmark, shown, one, scorer) for one in own]


def _control_report(report: Json, shown: Json) -> Json:
    """What evaluation counted over the controls of this model; empty where none were run."""
    wanted = (shown["model"], shown["benchmark"], shown["prompt"])
    for one in report["control_reports"]:
        if (one["model"], one["benchmark"], one["prompt"]) == wanted:
            return one
    return {}


def _needs_audio(control_report: Json, scorer: str) -> Tally | None:
    by_scorer: dict[str, Json] = control_report.get("needs_audio") or {}
    counted = by_scorer.get(scorer)
    if not counted or not counted["num_questions"]:
        return None
    return Tally(counted["num_correct"], counted["num_questions"])


def _control_row(benchmark: Json, shown: Json, control: Json, scorer: str) -> ControlRow:
    marks, proper = control["marks"][scorer], shown["marks"][scorer]
    rows = group_rows(benchmark, "task", marks=marks, start_marks=None)
    properly = group_rows(benchmark, "task", marks=proper, start_marks=None)
    pairs = list(zip(control["answers"], shown["answers"], strict=True))
    return ControlRow(
        name=control["control"],
        tally=tally(marks),
        with_audio=tally(proper),
        tasks=[
            (row.name, with_audio.tally.accuracy - row.tally.accuracy)
            for row, with_audio in zip(rows, properly, strict=True)
        ],
        consistency=sum(one == two for one, two in pairs) / len(pairs),
    )


def _validation_figures(report: Json, training: Json) -> list[Figure]:
    """Accuracy by step on the held-out examples that chose the step, if there are any."""
    held_out = [one for one in report["benchmarks"] if not one["is_test"]]
    for benchmark in held_out:
        scorer = leading_scorer(report, benchmark["name"])
        if scorer:
            figures = accuracy_figures(
                report, benchmark, scorer=scorer, training=training, prefix="validation"
            )
            return figures[:1]
    return []


def other_model_pages(report: Json) -> list[Page]:
    """One page a start model or further model: its accuracies, groups and controls."""
    files = model_files(report)
    models = [one["model"] for one in report["evaluations"] if one["step"] is None]
    return [_other_model_page(report, model, files[model]) for model in dict.fromkeys(models)]


def _other_model_page(report: Json, model: str, file: str) -> Page:
    parts: list[Part] = []
    for benchmark in tests_of(report):
        scorer = leading_scorer(report, benchmark["name"])
        judged = evaluations_of(report, benchmark["name"], scorer=scorer) if scorer else []
        own = [one for one in judged if one["model"] == model and one["step"] is None]
        parts += [_part(report, benchmark, one, scorer=str(scorer)) for one in own]
    own = [one for one in report["evaluations"] if one["model"] == model]
    context = {
        "heading": model,
        "method": METHOD_NAMES.get(own[0]["method"] or "base", str(own[0]["method"])),
        "training": None,
        "parts": parts,
        "curves": [],
        "validation": [],
        "caption": "",
        "facts": own[0],
    }
    return Page(file, "training.html", model, context)
