"""Hostile text in every field: pages keep their structure, whoever wrote the text.

A control with autoescape off shows that the test bites.
"""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import Environment

from benchmarks.hostile_text import PAYLOADS, poisoned
from benchmarks.synthetic_experiment import write_experiment, write_published_rows
from reports.config import ReportConfig
from reports.numbers.leaderboard import rows
from reports.read import read_report
from reports.report import Report, clean
from reports.sheets import Provenance
from reports.site.exports import leaderboard_files
from reports.site.html import make_environment, render_page
from reports.site.pages import make_pages
from reports.site.question_data import write_question_data


@pytest.fixture(scope="module")
def small_report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    layout, profile = write_experiment(
        folder, num_questions=2, steps=(10, 20), with_controls=True, with_curves=False
    )
    write_published_rows(folder / "rows.csv", "demo-mmau")
    config = ReportConfig(published=False, rows=folder / "rows.csv")
    provenance = Provenance(commit="0123abc", versions={"torch": "2.13.0"})
    report = read_report(layout, config, settings=profile, provenance=provenance)
    return report.model_dump(mode="json")


def hostile_report(json_report, payload: str) -> Report:
    return Report.model_validate(clean(poisoned(json_report, payload)))


def pages_of(report: Report, environment: Environment, folder: Path) -> list[str]:
    found = rows(report)
    audio = {each.key: ["audio/x/00000.wav"] * 2 for each in report.benchmarks}
    questions = write_question_data(report, folder, audio=audio)
    pages = make_pages(report, found, leaderboard_files(found), questions, audio)
    return [render_page(environment, page, report) for page in pages]


class Structure(HTMLParser):
    """Tags with the names of their attributes, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(name for name, _ in attrs)))


def structure(html: str) -> list[tuple[str, tuple[str, ...]]]:
    parser = Structure()
    parser.feed(html)
    return parser.tags


@pytest.fixture(scope="module")
def safe_structure(small_report, tmp_path_factory):
    pages = pages_of(
        hostile_report(small_report, "SAFE"), make_environment(), tmp_path_factory.mktemp("safe")
    )
    return [structure(page) for page in pages]


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_no_payload_in_any_field_changes_a_page(payload, small_report, safe_structure, tmp_path):
    pages = pages_of(hostile_report(small_report, payload), make_environment(), tmp_path)
    for page, expected in zip(pages, safe_structure, strict=True):
        assert structure(page) == expected


def test_without_escaping_the_payloads_do_change_pages(small_report, safe_structure, tmp_path):
    """The control: were it to pass, the test above would prove nothing."""
    open_environment = make_environment().overlay(autoescape=False)
    changed = 0
    for number, payload in enumerate(PAYLOADS[:9]):  # those that are markup
        hostile = hostile_report(small_report, payload)
        pages = pages_of(hostile, open_environment, tmp_path / str(number))
        changed += [structure(page) for page in pages] != safe_structure
    assert changed >= 6


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_question_data_give_back_the_text_as_it_was(payload, small_report, tmp_path):
    hostile = hostile_report(small_report, payload)
    write_question_data(hostile, tmp_path, audio={})
    (script,) = tmp_path.glob("data/*/000.js")
    found = json.loads(script.read_text("ascii").partition(",0,")[2].removesuffix(");\n"))
    assert tuple(found["completions"]) == hostile.evaluations[0].completions
