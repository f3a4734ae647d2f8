"""One page as HTML: our templates, style and script, named by hash in its security policy."""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from reports.numbers.statistics import wilson
from reports.report import Report
from reports.site.charts import GREY, draw, marks, tick_text, ticks
from reports.site.links import clip_address, question_link

HERE = Path(__file__).parent
TEMPLATES = HERE / "templates"
ASSETS = HERE / "assets"
NAVIGATION = {
    "index.html": "Overview",
    "questions.html": "Questions",
    "data.html": "Training audio",
    "provenance.html": "Provenance",
}


class Page(NamedTuple):
    """One HTML file of the site."""

    file: str
    template: str
    title: str
    context: Mapping[str, object]
    """What the template is given."""
    script: str = ""
    """Further asset of ours, which loads data; empty: none."""


def make_environment() -> Environment:
    """Jinja that escapes everything in a page and fails on an unknown name."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawing = {"draw": draw, "ticks": ticks, "tick_text": tick_text, "marks": marks, "GREY": GREY}
    links = {"question_link": question_link, "clip_address": clip_address}
    environment.globals.update(drawing, **links)  # pyright: ignore[reportUnknownMemberType]  jinja2's
    environment.filters["wilson"] = wilson  # pyright: ignore[reportUnknownMemberType]  jinja2's
    return environment


def render_page(
    environment: Environment, page: Page, report: Report | None = None, style: str = ""
) -> str:
    """A page, of a report or the workspace's own, with its script, style and rules to add to it."""
    style = _asset("report.css") + style
    script = _asset("report.js") + (_asset(page.script) if page.script else "")
    # Data and clips where there are some.
    own = " 'self'" if page.script else ""
    media = " media-src 'self' blob:; img-src 'self' data:; connect-src 'self';"
    more = media if page.script or "clips" in page.context else ""
    return environment.get_template(page.template).render(
        **page.context,
        title=page.title,
        file=page.file,
        report=report,
        experiment=report.experiment if report else page.title,
        schema=report.format if report else "",
        navigation=NAVIGATION if report else {},
        policy=(
            f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'{own};"
            f"{more} base-uri 'none'; form-action 'none'"
        ),
        style=style,
        script=script,
    )


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
