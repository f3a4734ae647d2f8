"""What stands on each page but the models' own: see reports/site/model_pages.py for those."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

from reports.numbers.achievements import Headline, headlines
from reports.numbers.comparisons import MOST_LISTED, Comparison
from reports.numbers.leaderboard import METHOD_NAMES, LeaderboardRow, tests_of
from reports.site.boards import boards
from reports.site.exports import DASH, to_csv, to_json, to_latex, to_markdown
from reports.site.figures import Figure, accuracy_figures
from reports.site.links import compare_file, model_files, training_files
from reports.withheld import is_withheld, withheld

Json = dict[str, Any]

MOST_GROUPS = 2  # of four charts each on the overview; the others are on the trainings' pages
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
    context: Json


def leaderboard_files(rows: Sequence[LeaderboardRow]) -> dict[str, str]:
    """The exports beside the pages, by file name."""
    return {
        "leaderboard.md": to_markdown(rows),
        "leaderboard.tex": to_latex(rows),
        "leaderboard.csv": to_csv(rows),
        "leaderboard.json": to_json(rows),
    }


def index_page(
    report: Json,
    rows: Sequence[LeaderboardRow],
    exports: Mapping[str, str],
    comparisons: Sequence[Comparison],
) -> Page:
    """The overview: headlines, leaderboards, accuracy by step, models, the fetch account.

    Args:
        report: The report.
        rows: Of `leaderboard.rows(report)`.
        exports: Of `leaderboard_files(rows)`.
        comparisons: Of `comparisons.compare(report)`.
    """
    links = model_files(report)
    lines = headlines(report)
    context = {
        "summary": _summary(report),
        "tiles": [_tile(report, line) for line in lines],
        "boards": boards(report, rows, links),
        "withheld": withheld(report),
        "exports": exports,
        "curves": _curves(report, lines),
        "caption": CURVES_CAPTION,
        "models": _models(report),
        "comparisons": comparisons,
        "fetch": report["fetch"],
    }
    return Page("index.html", "index.html", "Overview", context)


def _summary(report: Json) -> str:
    trainings = [one for one in report["trainings"] if one["evaluated"]]
    benchmarks = [
        f"{one['name']} ({len(one['questions'])} questions"
        f"{', answers withheld' if is_withheld(one) else ''})"
        for one in tests_of(report)
    ]
    models = len({one["model"] for one in report["evaluations"]})
    return (
        f"{_count(models, 'model')} of {_count(len(trainings), 'training')} "
        f"and their start models, on {', '.join(benchmarks)}."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _tile(report: Json, line: Headline) -> Json:
    return {
        "title": f"{METHOD_NAMES.get(line.method, line.method)} · {line.benchmark}",
        "headline": line,
        "step_text": f"step {line.leading.step} ({line.leading.reason})",
        "file": training_files(report)[line.training],
        "compare_file": compare_file(report, line.start["model"], line.evaluation["model"])
        if line.start
        else "",
    }


def _curves(report: Json, lines: Sequence[Headline]) -> list[Json]:
    """Charts by training and benchmark; where there are many, the averages in one group."""
    trainings = {one["name"]: one for one in report["trainings"]}
    benchmarks = {one["name"]: one for one in report["benchmarks"]}
    groups: list[Json] = []
    averages: list[Figure] = []
    for index, line in enumerate(lines):
        figures = accuracy_figures(
            report,
            benchmarks[line.benchmark],
            scorer=line.scorer,
            training=trainings[line.training],
            prefix=f"curve{index}",
        )
        title = f"{line.training} on {line.benchmark}"
        groups.append({"title": title, "figures": figures})
        averages += [replace(figure, note=title) for figure in figures[:1]]
    return groups if len(groups) <= MOST_GROUPS else [{"title": "", "figures": averages}]


def _models(report: Json) -> list[Json]:
    """Trainings in the profile's order, then every other model."""
    files = training_files(report)
    found: list[Json] = []
    for training in report["trainings"]:
        own = [
            one
            for one in report["evaluations"]
            if one["training"] == training["name"] and one["step"] is not None
        ]
        found.append(
            {
                "name": training["name"],
                "file": files[training["name"]],
                "method": METHOD_NAMES.get(training["method"], training["method"]),
                "start": training["start_model"],
                "num_checkpoints": len({one["step"] for one in own})
                or len(training["checkpoint_steps"]),
                "benchmarks": ", ".join(dict.fromkeys(one["benchmark"] for one in own))
                or "not evaluated",
            }
        )
    links = model_files(report)
    others = [one for one in report["evaluations"] if one["step"] is None]
    for name in dict.fromkeys(one["model"] for one in others):
        own = [one for one in others if one["model"] == name]
        found.append(
            {
                "name": name,
                "file": links[name],
                "method": METHOD_NAMES.get(own[0]["method"] or "base", str(own[0]["method"])),
                "start": DASH,
                "num_checkpoints": DASH,
                "benchmarks": ", ".join(dict.fromkeys(one["benchmark"] for one in own)),
            }
        )
    return found


def compare_pages(comparisons: Sequence[Comparison]) -> list[Page]:
    """One page for each pair of models worth comparing."""
    return [
        Page(
            one.file,
            "compare.html",
            f"{one.pair.second} against {one.pair.first}",
            {"pair": one.pair, "sections": one.sections, "most_listed": MOST_LISTED},
        )
        for one in comparisons
    ]


def data_page(report: Json) -> Page:
    """The account of the training audio and of the rows made from it."""
    fetch = report["fetch"]
    context = {
        "fetch": fetch,
        "fetch_facts": flat(fetch["facts"]) if fetch else [],
        "convert": report["convert"],
    }
    return Page("data.html", "data.html", "Training audio", context)


def questions_page(benchmarks: Sequence[Json]) -> Page:
    """The question browser.

    Args:
        benchmarks: Name and data folder of each, of `questions.write_question_data`.
    """
    context = {"start": {"benchmarks": list(benchmarks)}}
    return Page("questions.html", "questions.html", "Questions", context)


def provenance_page(report: Json) -> Page:
    """Everything needed to make these numbers again."""
    context = {
        "provenance": flat(report["provenance"]),
        "benchmarks": [
            {
                "name": one["name"],
                "num_questions": len(one["questions"]),
                "sha256": one["questions_sha256"],
            }
            for one in report["benchmarks"]
        ],
        "evaluations": report["evaluations"],
        "prompts": sorted(
            {one["prompt_template"] for one in report["evaluations"] if one["prompt_template"]}
        ),
        "seeds": [(one["name"], one["settings"].get("seed", "")) for one in report["trainings"]],
        "config": json.dumps(report["config"], ensure_ascii=False, indent=1),
    }
    return Page("provenance.html", "provenance.html", "Provenance", context)


def flat(value: object, prefix: str = "") -> list[tuple[str, str]]:
    """A nested JSON value as lines of dotted key and text."""
    if isinstance(value, dict):
        members = cast("dict[str, object]", value)
        return [
            line
            for key, member in members.items()
            for line in flat(member, f"{prefix}.{key}" if prefix else key)
        ]
    if isinstance(value, list):
        items = cast("list[object]", value)
        return [(prefix, ", ".join(str(item) for item in items))]
    if isinstance(value, bool):
        return [(prefix, "yes" if value else "no")]
    return [(prefix, "none" if value is None else str(value))]
