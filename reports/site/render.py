"""Renders the static site of one report: pages, exports, question data and audio, in one folder.

The same report gives the same bytes: there is no clock here and no order of a dictionary of the
file system. The site is made in `site.part` and renamed at the end. Text of models, files and users
is hostile: Jinja escapes every value, pages run only our own script and style (named by their hash
in the content security policy), no link is made of data, and every file has a name of ours.
"""

import base64
import filecmp
import hashlib
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reports.numbers.comparisons import compare
from reports.numbers.leaderboard import LeaderboardRow
from reports.numbers.leaderboard import rows as leaderboard_rows
from reports.numbers.results import write_results
from reports.numbers.statistics import interval
from reports.report import Report
from reports.site.audio import publish_audio
from reports.site.charts import GREY, marks, tick_text, ticks
from reports.site.links import benchmark_slugs, links_of
from reports.site.model_pages import other_model_pages, training_pages
from reports.site.pages import (
    Clips,
    Page,
    compare_pages,
    data_page,
    leaderboard_files,
    overview_pages,
    provenance_page,
    questions_page,
)
from reports.site.question_data import QuestionData, write_clip_data, write_question_data
from reports.site.spectrogram import draw_spectrograms
from storage.jsonl import write_text

HERE = Path(__file__).parent
TEMPLATES = HERE / "templates"
ASSETS = HERE / "assets"
NAVIGATION = (
    ("index.html", "Overview"),
    ("questions.html", "Questions"),
    ("data.html", "Training audio"),
    ("provenance.html", "Provenance"),
)


def render(report: Report, site: Path, *, audio_roots: Mapping[str, Path]) -> None:
    """Write the whole site and put it in the place of the last one.

    Args:
        report: Of `read.read_report`, or its report.json read again.
        site: Folder to write.
        audio_roots: Folder that the questions' clips are relative to, by the benchmark's key; one
            that is not named is silent.
    """
    part = site.with_name(site.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    text = _without_places(report.model_dump_json(), report)
    write_text(part / "report.json", text + "\n")
    rows = leaderboard_rows(report)
    exports = leaderboard_files(rows)
    for name, text in exports.items():
        write_text(part / name, text)
    write_results(report, part / "results.parquet")
    audio = _publish_audio(report, part, audio_roots)
    pictures = {key: draw_spectrograms(clips, part, site) for key, clips in audio.items()}
    questions = write_question_data(report, part, audio=audio, pictures=pictures)
    if report.fetch:
        write_clip_data(report.fetch, part)
    environment = make_environment()
    for page in make_pages(report, rows, exports, questions, audio):
        text = _without_places(render_page(environment, page, report), report)
        write_text(part / page.file, text)
    _replace_folder(part, site)


def _without_places(text: str, report: Report) -> str:
    """Paths relative to the workspace or the home folder: where they lie is nobody's business."""
    for place, name in ((report.provenance.workspace, "{workspace}"), (str(Path.home()), "~")):
        if len(place) > 1 and place in text:
            text = re.sub(rf"(?<![\w/.-]){re.escape(place)}(?![\w.-])", name, text)
    return text


def make_pages(
    report: Report,
    rows: Sequence[LeaderboardRow],
    exports: Mapping[str, str],
    questions: Sequence[QuestionData],
    audio: Clips,
) -> list[Page]:
    """Every page of the site."""
    comparisons = compare(report)
    links = links_of(report, comparisons)
    return [
        *overview_pages(report, rows, exports, comparisons, links),
        *training_pages(report, links),
        *other_model_pages(report, links),
        *compare_pages(report, comparisons, links, audio),
        questions_page(questions),
        data_page(report),
        provenance_page(report),
    ]


def _publish_audio(
    report: Report, part: Path, audio_roots: Mapping[str, Path]
) -> dict[str, list[str | None]]:
    slugs = benchmark_slugs(report)
    return {
        benchmark.key: publish_audio(
            benchmark.questions, audio_roots[benchmark.key], part, folder=slugs[benchmark.key]
        )
        for benchmark in report.benchmarks
        if benchmark.key in audio_roots and audio_roots[benchmark.key].is_dir()
    }


def make_environment() -> Environment:
    """Jinja that escapes everything and fails on an unknown name."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["wilson"] = interval  # pyright: ignore[reportUnknownMemberType]  jinja2's
    drawing = {"ticks": ticks, "tick_text": tick_text, "marks": marks, "GREY": GREY}
    environment.globals.update(drawing)  # pyright: ignore[reportUnknownMemberType]  jinja2's
    return environment


def render_page(environment: Environment, page: Page, report: Report) -> str:
    """One page with its style and script inside, both named by hash in its policy."""
    style, script = read_asset("report.css"), read_asset("report.js")
    loads_data = bool(page.script)
    if loads_data:
        script += read_asset(page.script)
    return environment.get_template(page.template).render(
        **page.context,
        title=page.title,
        file=page.file,
        experiment=report.experiment,
        schema=report.format,
        navigation=[{"file": file, "text": text} for file, text in NAVIGATION],
        policy=policy(style, script, loads_data=loads_data, plays="clips" in page.context),
        style=style,
        script=script,
    )


def read_asset(name: str) -> str:
    """Text of a style or script of ours."""
    return (ASSETS / name).read_text(encoding="utf-8")


def policy(style: str, script: str, *, loads_data: bool, plays: bool) -> str:
    """Content security policy: our style and script by hash, data and clips where some are."""
    own = " 'self'" if loads_data else ""
    more = (
        " media-src 'self' blob:; img-src 'self' data:; connect-src 'self';"
        if loads_data or plays
        else ""
    )
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'{own};"
        f"{more} base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _replace_folder(part: Path, site: Path) -> None:
    """Put the new folder in the old one's place; a kill in between leaves both on disk.

    A file whose bytes are the old one's keeps its time, so that it is seen what changed.
    """
    for path in part.rglob("*.*"):
        before = site / path.relative_to(part)
        if not before.is_file() or before.samefile(path):  # a clip is linked, not copied
            continue
        if filecmp.cmp(path, before, shallow=False):
            shutil.copystat(before, path)
    old = site.with_name(site.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if site.exists():
        site.replace(old)
    part.replace(site)
    shutil.rmtree(old, ignore_errors=True)
