"""Renders the static site of one report: pages, exports, question data and audio, in one folder.

The same report gives the same bytes: there is no clock here and no order of a dictionary of the
file system. The site is made in `site.part` and renamed at the end. Text of models, files and users
is hostile: Jinja escapes every value, pages run only our own script and style (named by their hash
in the content security policy), no link is made of data, and every file has a name of ours.
"""

import filecmp
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from reports.numbers import leaderboard
from reports.numbers.results import write_results
from reports.report import Report
from reports.site.audio import publish_audio
from reports.site.exports import leaderboard_files
from reports.site.html import make_environment, render_page
from reports.site.links import benchmark_slugs
from reports.site.pages import make_pages
from reports.site.question_data import write_clip_data, write_question_data
from reports.site.spectrogram import draw_spectrograms
from storage.jsonl import write_text


def render(report: Report, site: Path, *, audio_roots: Mapping[str, Path]) -> None:
    """Write the whole site and put it in the place of the last one.

    Clips are looked for in the benchmark's root, by its key; a benchmark without one is silent.
    """
    part = site.with_name(site.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write_text(part / "report.json", _without_places(report.model_dump_json(), report) + "\n")
    rows = leaderboard.rows(report)
    exports = leaderboard_files(rows)
    for name, text in exports.items():
        write_text(part / name, text)
    write_results(report, part / "results.parquet")
    slugs = benchmark_slugs(report)
    audio = {
        benchmark.key: publish_audio(benchmark.questions, root, part, folder=slugs[benchmark.key])
        for benchmark in report.benchmarks
        if (root := audio_roots.get(benchmark.key)) and root.is_dir()
    }
    pictures = {key: draw_spectrograms(clips, part, site) for key, clips in audio.items()}
    questions = write_question_data(report, part, audio=audio, pictures=pictures)
    if report.fetch:
        write_clip_data(report.fetch, part)
    environment = make_environment()
    for page in make_pages(report, rows, exports, questions, audio):
        text = render_page(environment, page, report)
        write_text(part / page.file, _without_places(text, report))
    _replace_folder(part, site)


def _without_places(text: str, report: Report) -> str:
    """Paths relative to the workspace or the home folder: where they lie is nobody's business."""
    for place, name in ((report.provenance.workspace, "{workspace}"), (str(Path.home()), "~")):
        if len(place) > 1 and place in text:
            text = re.sub(rf"(?<![\w/.-]){re.escape(place)}(?![\w.-])", name, text)
    return text


def _replace_folder(part: Path, site: Path) -> None:
    """Put the new folder in the old one's place; a kill in between leaves both on disk.

    A file whose bytes are the old one's keeps its time, so that it is seen what changed.
    """
    for path in part.rglob("*.*"):
        before = site / path.relative_to(part)
        # A clip is linked, not copied.
        is_new = not before.is_file() or before.samefile(path)
        if not is_new and filecmp.cmp(path, before, shallow=False):
            shutil.copystat(before, path)
    old = site.with_name(site.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if site.exists():
        site.replace(old)
    part.replace(site)
    shutil.rmtree(old, ignore_errors=True)
