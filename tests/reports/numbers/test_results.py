import subprocess
import sys

import pandas as pd
import pyarrow as pa
import pytest

from benchmarks.synthetic_experiment import withhold_answers, write_experiment
from reports import results
from reports.config import ReportConfig
from reports.numbers.results import results_table
from reports.read import read_report
from reports.report import Report
from storage.errors import PipelineError
from tests.reports.conftest import render_site


def frame(report: Report) -> pd.DataFrame:
    kinds = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    return results_table(report).to_pandas(types_mapper=kinds.get)


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    layout, profile = write_experiment(
        tmp_path_factory.mktemp("results"), num_questions=12, steps=(10, 20), with_controls=True
    )
    render_site(layout, profile)
    return layout


def test_a_notebook_reads_every_answer_of_an_experiment(layout):
    table = results(layout.root)
    assert len(table) == 5 * 12 * 2  # three models, two of them also silent; questions; scorers
    keys = ["model", "benchmark", "prompt", "control", "question", "scorer"]
    assert not table.duplicated(keys).any()
    assert set(table.columns) >= {*keys, "task", "sub_category", "difficulty", "answer"}


def test_the_tables_means_are_those_of_the_leaderboard(report):
    table = frame(report)
    proper = table[table.control.isna() & (table.scorer == "official")]
    means = proper.groupby("model", observed=True).right.mean()
    for evaluation in report.judged(report.tests[0], "official").evaluations:
        right = evaluation.marks["official"].count("1")
        assert means[evaluation.model] == pytest.approx(right / 60)


def test_an_answer_that_is_no_choice_has_no_index_and_a_right_one_that_of_the_answer(report):
    table = frame(report)
    questions = {each.id: each for each in report.tests[0].questions}
    strict = table[(table.scorer == "strict") & table.right]
    for row in strict.itertuples():
        question = questions[row.question]
        assert question.choices[row.choice_index] == question.answer
    assert table.choice_index.isna().any()


def test_a_withheld_answer_is_neither_right_nor_wrong(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=6, steps=(10,))
    withhold_answers(layout, "demo-mmau")
    table = frame(read_report(layout, ReportConfig(), settings=profile))
    assert len(table) == 2 * 6 * 2
    assert table.right.isna().all()


def test_an_experiment_without_a_report_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(PipelineError, match=r"results\.parquet is missing; run the report stage"):
        results(tmp_path)


def test_importing_the_function_does_not_load_pandas():
    code = "import sys; from reports import results; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
