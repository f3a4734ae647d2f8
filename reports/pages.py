"""What stands on the overview page."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from reports.boards import boards
from reports.exports import to_csv, to_json, to_latex, to_markdown
from reports.figures import accuracy_figures
from reports.headlines import Headline, headlines
from reports.leaderboard import METHOD_NAMES, LeaderboardRow
from reports.names import compare_file, model_files, training_files

Json = dict[str, Any]

CURVES_CAPTION = (
    "Bands are 95 % intervals of one step each, not of the whole curve, and neighbouring steps answer the same questions: "
    "a step is compared with another on its comparison page. The filled point is the declared step."
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


def index_page(report: Json, rows: Sequence[LeaderboardRow]) -> Page:
    """The overview: headlines, leaderboards, accuracy by step, models, the fetch account."""
    links = model_files(report)
    lines = headlines(report)
    exports = leaderboard_files(rows)
    context = {
        "summary": _summary(report),
        "tiles": [_tile(report, line) for line in lines],
        "boards": boards(report, rows, links),
        "exports": [{"file": name, "text": text} for name, text in exports.items()],
        "curves": _curves(report, lines),
        "models": _models(report),
        "fetch": report["fetch"],
    }
    return Page("index.html", "index.html", "Overview", context)


def _summary(report: Json) -> str:
    trainings = [one for one in report["trainings"] if one["evaluated"]]
    benchmarks = [
        f"{one['name']} ({len(one['questions'])} questions)" for one in report["benchmarks"]
    ]
    models = len({one["model"] for one in report["evaluations"]})
    return f"{_count(models, 'model')} of {_count(len(trainings), 'training')} and their start models, on {', '.join(benchmarks)}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _tile(report: Json, line: Headline) -> Json:
    step = line.evaluation["step"]
    declared = (report["config"].get("evaluate") or {}).get("declared_step")
    last = max(
        one["step"]
        for one in report["evaluations"]
        if one["training"] == line.training and one["step"] is not None
    )
    reason = (
        "declared step"
        if declared == step
        else "last step"
        if step == last
        else "chosen on validation"
    )
    return {
        "title": f"{METHOD_NAMES.get(line.method, line.method)} · {line.benchmark}",
        "headline": line,
        "step_text": f"step {step} ({reason})",
        "file": training_files(report)[line.training],
        "compare_file": compare_file(report, line.start["model"], line.evaluation["model"])
        if line.start
        else "",
    }


def _curves(report: Json, lines: Sequence[Headline]) -> list[Json]:
    """A group of charts for each training and benchmark; only the average where there are many."""
    groups: list[Json] = []
    trainings = {one["name"]: one for one in report["trainings"]}
    benchmarks = {one["name"]: one for one in report["benchmarks"]}
    for index, line in enumerate(lines):
        figures = accuracy_figures(
            report,
            benchmarks[line.benchmark],
            scorer=line.scorer,
            training=trainings[line.training],
            prefix=f"curve{index}",
        )
        shown = figures if len(lines) <= 2 else figures[:1]
        title = f"{line.training} on {line.benchmark}"
        groups.append({"title": title, "caption": CURVES_CAPTION, "figures": shown})
    return groups


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
                "start": "–",
                "num_checkpoints": "–",
                "benchmarks": ", ".join(dict.fromkeys(one["benchmark"] for one in own)),
            }
        )
    return found
