"""How long the report of ten checkpoints and 1,000 questions takes, and how large its pages are.

Run: `python -m benchmarks.report [--questions 1000] [--checkpoints 10] [--json]`. The experiment is
made up (benchmarks/synthetic_experiment.py). How soon the question page is ready in a browser is
measured by tests/browser.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from benchmarks.synthetic_experiment import write_experiment
from reports.config import ReportConfig
from reports.read import read_report
from reports.site.render import render


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--checkpoints", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="print one JSON object as last line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), options.questions, options.checkpoints)
    for name, value in measured.items():
        print(f"{name:32} {value:12,.2f}")
    if options.json:
        print(json.dumps(measured))


def measure(workspace: Path, num_questions: int, num_checkpoints: int) -> dict[str, float]:
    """Read and render one experiment with a paragraph of thought in every output."""
    layout, profile = write_experiment(
        workspace,
        num_questions=num_questions,
        steps=range(100, 100 * num_checkpoints + 1, 100),
        benchmarks=("mmau-test-mini-original",),
        with_controls=True,
        num_thoughts=2,
    )
    begin = time.perf_counter()
    report = read_report(layout, ReportConfig(), settings=profile)
    read = time.perf_counter()
    render(report, layout.site, audio_roots={})
    rendered = time.perf_counter()
    pages = [path.stat().st_size for path in layout.site.glob("*.html")]
    data = layout.site / "data" / "mmau-test-mini-original"
    outputs = [path.stat().st_size for path in data.glob("[0-9]*.js")]
    begins_with = (layout.site / "questions.html").stat().st_size
    return {
        "read_s": read - begin,
        "render_s": rendered - read,
        "largest_page_kb": max(pages) / 1e3,
        "question_page_with_data_kb": (begins_with + (data / "questions.js").stat().st_size) / 1e3,
        "outputs_of_one_checkpoint_kb": max(outputs) / 1e3,
        "report_json_kb": (layout.site / "report.json").stat().st_size / 1e3,
    }


if __name__ == "__main__":
    main()
