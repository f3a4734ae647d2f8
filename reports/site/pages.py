"""What stands on each page.

Templates are given the report and its numbers as they are; what they say of them they say there.
"""

from collections.abc import Mapping, Sequence
from operator import eq

from reports.numbers.achievements import Achievement, achievements, other_models
from reports.numbers.comparisons import Comparison, compare, leading_rows, matrices
from reports.numbers.leaderboard import LeaderboardRow, method_name, method_of
from reports.numbers.statistics import group_rows, heat_rows, newcombe, tally
from reports.numbers.story import stories, variants
from reports.report import Report
from reports.sheets import flat
from reports.site.boards import boards
from reports.site.figures import Accuracy, accuracy, looks_of, training_panels
from reports.site.html import Page
from reports.site.links import Links, benchmark_slugs, links_of
from storage.records.evaluation import Tally

Clips = Mapping[str, Sequence[str | None]]
"""Addresses of the clips by the benchmark's key, in the order of its questions."""


def make_pages(
    report: Report,
    rows: Sequence[LeaderboardRow],
    exports: Mapping[str, str],
    questions: Sequence[Mapping[str, str]],
    clips: Clips,
) -> list[Page]:
    """Every page of the site."""
    comparisons = compare(report)
    links = links_of(report, comparisons)
    browsed = {"start": {"benchmarks": questions}}
    facts = [line for line in flat(report.provenance.model_dump()) if line[1]]
    prompts = {e.run.prompt.name: e.run.prompt for e in report.evaluations if e.run.prompt}
    made = {"provenance": facts, "prompts": prompts}
    loads = ("questions.js" if questions else "", "clips.js" if report.fetch else "")
    pages = [
        *_overview_pages(report, rows, exports, comparisons, links),
        *_model_pages(report, links),
        Page("questions.html", "questions.html", "Questions", browsed, loads[0]),
        Page("data.html", "data.html", "Training audio", {}, loads[1]),
        Page("provenance.html", "provenance.html", "Provenance", made),
    ]
    for comparison in comparisons:
        first, second = (report.label(key) for key in comparison.sections[0].keys)
        context = {"comparison": comparison, "first": first, "second": second, "clips": clips}
        file, title = links.comparisons[comparison.pair], f"{second} against {first}"
        pages.append(Page(file, "compare.html", title, context))
    return pages


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
    tested = [story.lead.benchmark for story in told]
    files = {benchmark.name: f"benchmark-{slugs[benchmark.key]}.html" for benchmark in tested}
    files |= {benchmark.name: "index.html" for benchmark in tested[:1]}
    shared = {"links": links, "files": files, "exports": exports}
    shared |= {"in_matrix": {*leading_rows(report)}, "variants": variants(report.trainings)}
    evaluated = [training for training in report.trainings if training.evaluated]
    pages: list[Page] = []
    for story in told:
        benchmark, judged = story.lead.benchmark, story.lead.judged
        looks = looks_of(report, story.named)
        context = {
            **shared,
            "story": story,
            "looks": looks,
            "accuracy": accuracy(judged, looks),
            "hours": [(looks[training.name], training.device_hours) for training in evaluated],
            "board": boards(judged, rows, links.models),
            "matrix": tables.get(benchmark.key),
            # Each pair that was judged on it, under its leading scorer, the first of its sections.
            "pairs": {
                comparison.pair: section
                for comparison in comparisons
                for section in reversed(comparison.sections)
                if section.benchmark.key == benchmark.key
            },
        }
        pages.append(Page(files[benchmark.name], "index.html", "Overview", context))
    logged = next((training for training in report.trainings if training.curve.step), None)
    curves = training_panels(report, logged) if logged else []
    bare = {**shared, "story": None, "board": None, "matrix": None, "pairs": {}, "curves": curves}
    return pages or [Page("index.html", "index.html", "Overview", bare)]


def _model_pages(report: Report, links: Links) -> list[Page]:
    """One page a training of the profile, and one a model that was not trained here."""
    trained, others = achievements(report), other_models(report)
    looks = looks_of(report)
    held_out = next((found for found in report.benchmarks if not found.is_test), None)
    judged = report.judged(held_out) if held_out else None
    validation = accuracy(judged, looks) if judged else None
    charts = {found.benchmark.key: accuracy(found, looks) for found in report.scored}
    pages: list[Page] = []
    for training in report.trainings:
        lines = [line for line in trained if line.training is training]
        context = {
            "method": method_name(training.method, training.variant),
            "training": training,
            "parts": [_part(report, line, links, charts[line.benchmark.key]) for line in lines],
            "curves": training_panels(report, training),
            "looks": looks,
            "validation": validation,
            "facts": lines[0].evaluation.run if lines else None,
        }
        file = links.trainings[training.name]
        pages.append(Page(file, "training.html", training.name, context))
    untrained = [sheet for sheet in report.evaluations if sheet.step is None]
    for model, run in {sheet.model: sheet.run for sheet in reversed(untrained)}.items():
        lines = [line for line in others if line.evaluation.model == model]
        context = {
            "method": method_of(run),
            "training": None,
            "parts": [_part(report, line, links) for line in lines],
            "validation": None,
            "facts": run,
        }
        pages.append(Page(links.models[model], "training.html", model, context))
    return pages


def _part(
    report: Report, line: Achievement, links: Links, chart: Accuracy | None = None
) -> dict[str, object]:
    """One benchmark on a model's page, with the chart of its trainings on a training's."""
    benchmark, scorer, start, shown = line.benchmark, line.scorer, line.start, line.evaluation
    steps = line.judged.course(line.training) if line.training else {}
    difficulties, sub_categories = (
        group_rows(benchmark.questions, key, line.marks, start and start.marks[scorer])
        for key in ("difficulty", "sub_category")
    )
    # The paper has no answers by question: Newcombe's interval of ours minus its average.
    paper = None
    if line.paper and line.paper.average is not None:
        total = line.tally.num_questions
        paper = newcombe(Tally(round(line.paper.average * total / 100), total), line.tally)
    counted = next((found for found in report.controls if found.key == shown.key), None)
    needs_audio = counted.needs_audio.get(scorer) if counted else None
    return {
        "line": line,
        "difficulties": difficulties,
        "sub_categories": sub_categories,
        "controls": _controls(report, line),
        "needs_audio": needs_audio if needs_audio and needs_audio.num_questions else None,
        "order": counted and counted.order,
        "against_paper": paper,
        "accuracy": chart,
        "heat": heat_rows(benchmark.questions, [sheet.marks[scorer] for sheet in steps.values()]),
        "labels": {step: report.label(sheet.key) for step, sheet in steps.items()},
        "compare_link": links.comparison(start.asked, shown.asked) if start else "",
    }


def _controls(report: Report, line: Achievement) -> list[Mapping[str, object]]:
    """The model without its audio, with another clip, or with its choices in another order."""
    questions, scorer, shown = line.benchmark.questions, line.scorer, line.evaluation
    properly = group_rows(questions, "task", line.marks)
    found: list[Mapping[str, object]] = []
    for control in report.on(line.benchmark):
        is_of_it = control.key.control and control.key.proper == shown.key
        if is_of_it and scorer in control.marks:
            rows = zip(properly, group_rows(questions, "task", control.marks[scorer]), strict=True)
            row = {
                "name": control.key.control,
                "tally": tally(control.marks[scorer]),
                # What the audio is worth.
                "tasks": {
                    own.name: own.tally.accuracy - other.tally.accuracy for own, other in rows
                },
                "same": sum(map(eq, control.answers, shown.answers)) / len(questions),
            }
            found.append(row)
    return found
