import base64
import hashlib
import json
import os
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from benchmarks.synthetic_experiment import withhold_answers, write_experiment
from reports.config import ReportConfig
from reports.read import read_report
from reports.report import Report
from reports.site.html import ASSETS, TEMPLATES
from reports.site.links import SOURCES, slug, source_link, unique_slugs
from reports.site.render import render

HASH = re.compile(r"'sha256-([^']+)'")


class Links(HTMLParser):
    """Collects every address that a page names."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, _tag, attrs):
        for name, value in attrs:
            if name in {"href", "src", "action", "data", "poster", "srcset"}:
                self.addresses.append(value)
            if name == "id":
                self.ids.append(value)


def parsed(page: Path) -> Links:
    links = Links()
    links.feed(page.read_text(encoding="utf-8"))
    return links


def every_file(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_page_and_export_is_there(site):
    names = set(every_file(site))
    assert {
        "index.html",
        "training-grpo.html",
        "model-tiny.html",
        "compare-tiny-grpo-step-30.html",
        "questions.html",
        "data.html",
        "provenance.html",
        "leaderboard.md",
        "leaderboard.tex",
        "leaderboard.csv",
        "leaderboard.json",
        "report.json",
        "data/demo-mmau/questions.js",
        "data/demo-mmau/000.js",
    } <= names


def test_the_same_report_gives_the_same_bytes(site, tmp_path):
    render(Report.read(site / "report.json"), tmp_path / "site", audio_roots={})
    assert every_file(tmp_path / "site") == every_file(site)


def test_rendering_replaces_the_old_site_whole(report, tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "old.html").write_text("old")
    render(report, folder, audio_roots={})
    assert not (folder / "old.html").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_no_page_names_an_address_elsewhere_but_the_sources_that_we_wrote(two_prompts):
    for page in two_prompts.glob("*.html"):
        for address in parsed(page).addresses:
            if (
                address == "data:,"
                or address in SOURCES.values()
                or re.fullmatch(r"https://arxiv.org/abs/[\d.]+", address)
            ):
                continue
            parts = urlsplit(address)
            assert not parts.scheme, f"{page.name}: {address}"
            assert not parts.netloc, f"{page.name}: {address}"


def test_every_link_leads_to_a_file_of_the_site(site):
    for page in site.glob("*.html"):
        for address in parsed(page).addresses:
            path = unquote(urlsplit(address).path)
            assert urlsplit(address).scheme or not path or (site / path).is_file(), (
                f"{page.name}: {address}"
            )


def test_no_id_is_used_twice_on_a_page(site):
    for page in site.glob("*.html"):
        ids = parsed(page).ids
        assert len(ids) == len(set(ids)), page.name


def test_the_policy_names_the_very_script_and_style_of_the_page(site):
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
        assert policy
        allowed = set(HASH.findall(policy.group(1).replace("&#39;", "'")))
        inline = re.findall(r"<style>(.*?)</style>", text, re.S)
        inline += re.findall(r"<script>(.*?)</script>", text, re.S)
        digests = {
            base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in inline
        }
        assert digests == allowed, page.name
        assert "unsafe" not in policy.group(1)


def test_no_page_needs_an_inline_style_or_handler(site):
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"<[^>]+\sstyle=", text), page.name
        assert not re.search(r"<[^>]+\son\w+=", text), page.name


def test_our_scripts_never_parse_text_as_markup():
    for script in ASSETS.glob("*.js"):
        text = script.read_text(encoding="utf-8")
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in text, f"{script.name} uses {word}"


def test_only_our_own_style_script_and_drawings_are_marked_safe():
    found = {
        match
        for template in TEMPLATES.glob("*.html")
        for match in re.findall(r"{{\s*([\w.]+)\|safe", template.read_text(encoding="utf-8"))
    }
    assert found == {"style", "script", "drawn"}  # and the marks of a strip, by a call


def test_numbers_of_the_page_are_those_of_the_table(site):
    rows = json.loads((site / "leaderboard.json").read_text())
    text = (site / "index.html").read_text(encoding="utf-8")
    for row in rows:
        if row["scorer"] == "official":
            assert f">{100 * row['average']['num_correct'] / 60:.2f}<" in text


def test_the_resolution_of_the_benchmark_is_said_in_words(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    assert re.search(r"Differences of \d+\.\d points between our models are found with", text)


def test_what_the_controls_say_stands_on_the_models_page(site):
    text = (site / "training-grpo.html").read_text(encoding="utf-8")
    assert "Of the 30 questions that the start model gets wrong under silence, 15 are right" in text
    assert "The same choice in every order, 4 or as many as there are choices: 30 of 60" in text


def test_what_rules_without_ears_score_is_said(report, site):
    questions = report.benchmarks[0].questions
    first = sum(each.choices[0] == each.answer for each in questions)
    text = (site / "index.html").read_text(encoding="utf-8")
    assert f"Always the first choice is right on {100 * first / 60:.1f} %" in text


def test_a_bare_first_state_renders(tmp_path):
    layout, profile = write_experiment(
        tmp_path, num_questions=9, steps=(10,), with_fetch=False, with_curves=False
    )
    report = read_report(layout, ReportConfig(), settings=profile)
    render(report, layout.site, audio_roots={})
    assert "fetched no audio" in (layout.site / "data.html").read_text()
    assert "No metrics were logged" in (layout.site / "training-grpo.html").read_text()


def test_a_benchmark_whose_answers_are_withheld_has_pages_but_no_score(tmp_path):
    layout, profile = write_experiment(
        tmp_path, num_questions=9, steps=(10,), benchmarks=("demo-mmau", "mmau-test")
    )
    withhold_answers(layout, "mmau-test")
    report = read_report(layout, ReportConfig(), settings=profile)
    render(report, layout.site, audio_roots={})
    rows = json.loads((layout.site / "leaderboard.json").read_text())
    assert {row["benchmark"] for row in rows} == {"demo-mmau"}
    text = (layout.site / "data" / "mmau-test" / "questions.js").read_text("ascii")
    assert '"scorers":[]' in text
    assert "<answer>" in (layout.site / "data" / "mmau-test" / "000.js").read_text("ascii")
    overview = (layout.site / "index.html").read_text("utf-8")
    assert "Answers withheld: submit" in overview
    assert "evaluation/grpo-step-10/mmau-test/answer/submission.json" in overview
    assert "mmau-test (9 questions, answers withheld)" in " ".join(overview.split())
    assert "Leaderboard: mmau-test" not in overview


def test_a_model_that_was_only_evaluated_renders(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=9, steps=(10,))
    profile["train"] = []
    profile["evaluate"]["models"] = [{"name": "tiny", "model": "models/tiny", "prompt": "answer"}]
    report = read_report(layout, ReportConfig(), settings=profile)
    render(report, layout.site, audio_roots={})
    assert (layout.site / "model-tiny.html").exists()


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", "..", "\u202e", "<x>", "x" * 5000])
def test_no_name_becomes_a_path(name):
    part = slug(name)
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,59}", part)
    assert part not in {".", ".."}


def test_names_that_would_collide_get_different_files():
    slugs = unique_slugs({name: name for name in ("a b", "a-b", "A/B")})
    assert len(set(slugs.values())) == 3


def test_question_data_are_plain_ascii_calls(site):
    for path in (site / "data").rglob("*.js"):
        text = path.read_bytes().decode("ascii")
        call = re.fullmatch(r'reportData\("(questions|outputs|clips)",\d+,(.*)\);\n', text, re.S)
        assert call
        json.loads(call.group(2))


def text_of(page: Path) -> str:
    """What a person reads, white space made single."""
    html = page.read_text(encoding="utf-8")
    body = re.sub(r"<(script|style|svg|textarea).*?</\1>", " ", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def board_of(page: Path) -> str:
    """The leaderboard under the first scorer."""
    html = page.read_text(encoding="utf-8")
    return re.search(r'<table class="wide sortable leaderboard">.*?</table>', html, re.DOTALL)[0]


@pytest.fixture(scope="module")
def two_prompts(tmp_path_factory):
    """One start model, asked with the prompts of both trainings, on both splits of a benchmark."""
    layout, profile = write_experiment(
        tmp_path_factory.mktemp("prompts"),
        num_questions=60,
        benchmarks=("mmau-test-mini-original", "mmau-test-original"),
        trainings=("grpo", "sft"),
        settings={"sft": {"prompt": "plain"}},
    )
    report = read_report(layout, ReportConfig(), settings=profile)
    render(report, layout.site, audio_roots={})
    return layout.site


def test_the_first_screen_says_what_the_comparison_says(two_prompts):
    """A tile said +1.4 (p = .189), the comparison +2.8 (p = .010): one ignored the prompt."""
    for file, benchmark in (
        ("index.html", "mmau-test-mini-original"),
        ("benchmark-mmau-test-original.html", "mmau-test-original"),
    ):
        gain = re.search(
            r"The gain is ([+-][\d.]+) points \[ ?([\d.]+), ([\d.]+)", text_of(two_prompts / file)
        )
        section = text_of(two_prompts / "compare-tiny-answer-grpo-step-30.html")
        section = section.partition(f"{benchmark}, official scorer")[2].partition("scorer")[0]
        assert f"The difference is {gain[1]} points" in section
        assert f"+{gain[2]} to +{gain[3]}" in section


def test_a_source_is_a_link_that_we_wrote():
    assert source_link("CESAR, ICLR 2026, arXiv 2510.20867") == "https://arxiv.org/abs/2510.20867"
    assert source_link("wenet-e2e/west pull request 117").endswith("/west/pull/117")
    assert source_link("javascript:alert(1)") == ""
    assert source_link("their page, https://elsewhere.example") == ""


def test_the_test_columns_are_those_of_the_same_scorer_and_prompt(two_prompts):
    """They were looked up by model and method alone."""
    found = json.loads((two_prompts / "leaderboard.json").read_text())
    table = board_of(two_prompts / "index.html")
    lines = re.findall(r'<tr class="ours.*?</tr>', table, re.DOTALL)
    for line in lines:
        name = re.search(r"<th[^>]*><a[^>]*>([^<]+)", line)[1]
        prompt = re.search(r"prompt (\w+)", line)[1]
        averages = [
            f"{row['average']['percent']:.2f}"
            for row in found
            if (row["training"] or row["model"], row["prompt"]) == (name, prompt)
            and row["scorer"] == "official"
            and row["step"] in {None, 30}
        ]
        shown = re.findall(r'<td class="number average[^>]*>([\d.]+)<', line)
        assert shown == averages
        assert len(shown) == 2
    assert len(lines) == 4


def test_a_training_is_one_row_with_its_steps_under_it_among_the_published_rows(two_prompts):
    table = board_of(two_prompts / "index.html")
    bodies = re.split("<tbody[^>]*>", table)[1:]
    names = [re.search(r"<th[^>]*>(?:<a[^>]*>)?([^<]+)", body)[1].strip() for body in bodies]
    assert {"grpo", "sft", "tiny"} <= set(names)
    grpo = bodies[names.index("grpo")]
    assert re.findall(r"<th[^>]*>(step \d+)", grpo) == ["step 10", "step 20", "step 30"]
    assert "GRPO, prompt answer, step 30" in grpo
    averages = [
        float(re.search(r'number average" data-value="([\d.]+)', body)[1]) for body in bodies
    ]
    assert averages == sorted(averages, reverse=True)
    assert 0 < names.index("grpo") < len(names) - 1


def test_the_matrix_says_what_the_pairs_page_says_that_it_leads_to(two_prompts):
    index = (two_prompts / "index.html").read_text(encoding="utf-8")
    table = re.search(r'<table class="matrix">.*?</table>', index, re.DOTALL)[0]
    cells = re.findall(r'<a href="(compare-[^"]+)">([+-][\d.]+)</a>', table)
    counts = re.findall(r'<a href="(compare-[^"]+)">(\d+) : (\d+)</a>', table)
    assert len(cells) == len(counts) == 6  # of two trainings and two starts
    for file, points in cells:
        section = text_of(two_prompts / file).partition("original, official scorer")[2]
        assert re.search(r"The difference is ([+-][\d.]+) points", section)[1] == points
    for file, _, only_column in counts:
        page = text_of(two_prompts / file)
        assert re.search(r"(\d+) questions gained", page)[1] == only_column


def test_each_prompts_start_has_a_name_and_a_comparison_of_its_own(two_prompts):
    names = {path.name for path in two_prompts.glob("compare-tiny-*")}
    assert names >= {
        "compare-tiny-answer-grpo-step-30.html",
        "compare-tiny-plain-sft-step-30.html",
    }
    assert "sft-step-30 against tiny · plain" in text_of(two_prompts / "index.html")


def test_a_file_that_did_not_change_keeps_its_time(report, tmp_path):
    folder = tmp_path / "site"
    render(report, folder, audio_roots={})
    for path in folder.rglob("*.*"):
        os.utime(path, (1_000_000, 1_000_000))
    changed = report.model_copy(update={"profile": "{}"})
    render(changed, folder, audio_roots={})
    again = {p.name for p in folder.rglob("*.*") if p.is_file() and p.stat().st_mtime != 1_000_000}
    assert again == {"provenance.html", "report.json"}
