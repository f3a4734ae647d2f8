import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.synthetic_experiment import write_experiment
from flows.score import main
from flows.serving.prefect_flows import score_flow
from reports.config import ReportConfig
from reports.numbers.comparisons import compare
from reports.numbers.leaderboard import rows
from reports.read import read_report
from reports.site.render import render
from storage.benchmarks.parse import write_questions
from storage.benchmarks.published import prepare_questions
from storage.config import BenchmarkConfig
from storage.errors import PipelineError
from storage.layout import Layout
from storage.records.question import Question


def make(name: str, task: str, answer: str | None = "a dog") -> Question:
    return Question(
        id=name,
        clips=(f"{name}.wav",),
        question=f"Who is in {name}?",
        choices=("a dog", "a cat"),
        answer=answer,
        task=task,
        category="Reasoning",
        sub_category="Counting",
        difficulty="easy",
        dataset="AudioSet",
        split="test-mini",
    )


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Four questions: one right, one only officially, one only strictly, one wrong."""
    questions = [
        make("q1", "sound"),
        make("q2", "sound"),
        make("q3", "music"),
        make("q4", "speech"),
    ]
    write_questions(tmp_path / "questions.json", questions)
    said = {"q1": "a dog", "q2": "It is not a dog", "q3": "A", "q4": "a cat"}
    rows = [{"id": name, "model_output": text} for name, text in said.items()]
    predictions = tmp_path / "predictions.json"
    predictions.write_text(json.dumps(rows))
    return predictions, tmp_path / "questions.json"


def score(files: tuple[Path, Path], *options: str) -> None:
    predictions, questions = files
    main([str(predictions), "--benchmark", "demo", "--questions", str(questions), *options])


def test_a_file_is_scored_and_the_table_shows_counts_and_intervals(files, capsys) -> None:
    score(files)
    record = json.loads((files[0].parent / "predictions.json.score.json").read_text())
    assert record["benchmark"] == "demo"
    assert record["scorers"]["official"]["overall"] == {"num_correct": 2, "num_questions": 4}
    assert record["scorers"]["strict"]["overall"] == {"num_correct": 2, "num_questions": 4}
    assert record["scorers"]["official"]["task"]["sound"] == {"num_correct": 2, "num_questions": 2}
    assert record["scorers"]["strict"]["task"]["music"] == {"num_correct": 1, "num_questions": 1}
    assert record["num_unparsed"] == 1
    printed = capsys.readouterr().out
    # Wilson's interval of 2 in 4 is 15.0 to 85.0.
    assert (
        "all                                 4    50.00 15.0-85.0      50.00 15.0-85.0"
        in printed.splitlines()
    )
    assert printed.index("  sound") < printed.index("  music") < printed.index("  speech")
    assert "Counting" in printed
    assert len((files[0].parent / "predictions.json.verdicts.jsonl").read_text().splitlines()) == 4


def test_an_evaluations_own_score_is_not_written_over(files, tmp_path) -> None:
    """The report and the next run compare that file with the evaluation's record."""
    (tmp_path / "score.json").write_text("the evaluation's")
    score(files)
    assert (tmp_path / "score.json").read_text() == "the evaluation's"
    assert (tmp_path / "predictions.json.score.json").exists()


def drop(files: tuple[Path, Path], name: str) -> None:
    rows = [row for row in json.loads(files[0].read_text()) if row["id"] != name]
    files[0].write_text(json.dumps(rows))


def test_a_partial_file_is_refused_with_the_missing_ids(files) -> None:
    """The published script skips what is missing, so that a broken run scores higher."""
    drop(files, "q4")
    with pytest.raises(
        PipelineError, match=r"covers 3 of 4 questions; missing: q4\..*--allow-partial"
    ):
        score(files)
    assert not (files[0].parent / "predictions.json.score.json").exists()


def test_a_partial_file_that_is_allowed_shows_its_coverage(files, capsys) -> None:
    drop(files, "q4")
    score(files, "--allow-partial")
    printed = capsys.readouterr().out
    assert "answered 3 of 4" in printed
    assert "PARTIAL: 1 questions have no prediction and count as wrong" in printed
    assert "of the answered ones, right (official): 2 of 3 (66.67)" in printed
    record = json.loads((files[0].parent / "predictions.json.score.json").read_text())
    assert record["scorers"]["official"]["overall"] == {"num_correct": 2, "num_questions": 4}
    assert record["coverage"] == {"num_answered": 3, "num_questions": 4, "missing": ["q4"]}


def test_withheld_answers_give_a_submission_file_instead_of_a_score(tmp_path, capsys) -> None:
    write_questions(
        tmp_path / "questions.json", [make("q1", "sound", None), make("q2", "sound", None)]
    )
    rows = [{"id": name, "model_output": "B"} for name in ("q1", "q2")]
    (tmp_path / "predictions.json").write_text(json.dumps(rows))
    score((tmp_path / "predictions.json", tmp_path / "questions.json"))
    assert "answers of this benchmark are withheld" in capsys.readouterr().out
    submission = json.loads((tmp_path / "predictions.json.submission.json").read_text())
    assert [row["model_output"] for row in submission] == ["B", "B"]
    assert [row["model_prediction"] for row in submission] == ["B", "B"]


def test_questions_of_another_version_are_refused(files) -> None:
    options = ["--benchmark", "mmau-test-mini-original", "--questions", str(files[1])]
    with pytest.raises(PipelineError, match="is not mmau-test-mini-original: sha256"):
        main([str(files[0]), *options])


def test_questions_prepared_in_a_workspace_are_found_by_name(files, tmp_path, capsys) -> None:
    config = BenchmarkConfig(name="demo", questions=str(files[1]))
    prepare_questions(config, tmp_path / "workspace/benchmarks")
    options = ["--benchmark", "demo", "--workspace", str(tmp_path / "workspace")]
    main([str(files[0]), *options])
    assert "demo: predictions.json" in capsys.readouterr().out
    files[1].write_text(files[1].read_text().replace("cat", "kitten"))
    prepare_questions(config, tmp_path / "workspace/benchmarks")
    with pytest.raises(PipelineError, match="demo stands for several files of questions: name one"):
        main([str(files[0]), *options])


def test_an_unknown_benchmark_without_questions_names_the_known_ones(files, tmp_path) -> None:
    with pytest.raises(PipelineError, match=r"not a published one \(adqa-dev, mmar-2025-05, "):
        main([str(files[0]), "--benchmark", "mine", "--workspace", str(tmp_path / "none")])


def test_the_command_says_an_error_in_one_line_and_imports_nothing_heavy(files) -> None:
    code = (
        "import sys, runpy\n"
        "heavy = {'torch', 'transformers', 'soundfile', 'soxr', 'prefect', 'datasets',\n"
        "         'requests', 'numpy', 'scipy', 'pandas', 'statsmodels'}\n"
        "try: runpy.run_module('flows.score', run_name='__main__')\n"
        "finally: print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    options = ["--benchmark", "demo", "--questions", str(files[1])]
    done = subprocess.run(
        [sys.executable, "-c", code, str(files[0]), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.strip() == "[]"
    assert "all     " in done.stdout
    drop(files, "q1")
    done = subprocess.run(
        [sys.executable, "-m", "flows.score", str(files[0]), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_the_flow_gives_the_same_record(files) -> None:
    record = score_flow.fn(files[0], "demo", questions=files[1])
    assert record == json.loads((files[0].parent / "predictions.json.score.json").read_text())
    assert score_flow.name == "score"


def test_a_second_file_in_a_folder_leaves_the_first_ones_score(files) -> None:
    """Scoring every file of a folder left the score of the last alone."""
    score(files)
    before = (files[0].parent / "predictions.json.score.json").read_bytes()
    second = files[0].with_name("predictions.csv")
    second.write_text("id,prediction\n" + "".join(f"q{i},a cat\n" for i in range(1, 5)))
    score((second, files[1]))
    assert (files[0].parent / "predictions.json.score.json").read_bytes() == before
    record = json.loads((files[0].parent / "predictions.csv.score.json").read_text())
    assert record["scorers"]["strict"]["overall"] == {"num_correct": 0, "num_questions": 4}


def test_a_missing_file_and_a_name_without_version_are_told_before_any_download(files) -> None:
    """Nothing is there to download from: the address would be tried first otherwise."""
    missing = [str(files[0].with_name("none.json")), "--benchmark", "mmau-test-mini-original"]
    with pytest.raises(PipelineError, match=r"none\.json is missing: name the predictions' file"):
        main(missing)
    named = (
        r"mmau-test-mini names no version: say which of mmau-test-mini-original, mmau-test-mini-"
    )
    with pytest.raises(PipelineError, match=named):
        main([str(files[0]), "--benchmark", "mmau-test-mini", "--questions", str(files[1])])


def test_rows_of_another_version_are_named_with_it(files, tmp_path) -> None:
    """Ids are the same in both versions of MMAU."""
    rows = json.loads(files[1].read_text())
    rows[2]["choices"] = ["a dog", "a horse"]
    other = tmp_path / "workspace/benchmarks/demo-2"
    other.mkdir(parents=True)
    (other / "questions.json").write_text(json.dumps(rows))
    answered = [{**row, "model_output": "a dog"} for row in rows]
    files[0].write_text(json.dumps(answered))
    with pytest.raises(PipelineError, match=r"1 of these rows are of demo-2 \(q3\): name the vers"):
        score(files, "--workspace", str(tmp_path / "workspace"))


def test_a_reader_that_has_enough_gets_no_traceback(files) -> None:
    """`| head -1` ended in a BrokenPipeError."""
    options = ["--benchmark", "demo", "--questions", str(files[1])]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "flows.score", str(files[0]), *options],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.stderr, done.returncode) == ("", 128 + signal.SIGPIPE)
    assert (files[0].parent / "predictions.json.score.json").exists()


def imported_into(workspace: Path, *options: str) -> Path:
    """An experiment, and predictions of another tool: always the first choice."""
    layout, _ = write_experiment(workspace)
    questions = layout.benchmark("demo-mmau") / "questions.json"
    rows = [{**row, "pred": row["choices"][0]} for row in json.loads(questions.read_text())]
    file = workspace / "theirs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    known = ["--benchmark", "demo-mmau", "--questions", str(questions)]
    main([str(file), *known, "--workspace", str(workspace), "--into", "demo", *options])
    return file


def test_another_tools_predictions_become_a_row_of_an_experiment(tmp_path) -> None:
    file = imported_into(tmp_path)
    layout, profile = Layout(tmp_path, "demo"), write_experiment(tmp_path / "same")[1]
    report = read_report(layout, ReportConfig(), settings=profile)
    (row,) = [row for row in rows(report) if row.method == "imported" and row.scorer == "official"]
    stated = json.loads(file.with_name("theirs.jsonl.score.json").read_text())
    assert row.average is not None
    assert row.average.tally is not None
    assert stated["scorers"]["official"]["overall"] == asdict(row.average.tally)
    assert row.model.startswith("theirs-")
    assert not report.apart
    compared = [found for found in compare(report) if found.pair.first.model == row.model]
    assert [found.reason for found in compared] == ["another model and leading step"]
    (sheet,) = [sheet for sheet in report.evaluations if sheet.model == row.model]
    assert sheet.completions[0] == report.benchmarks[0].questions[0].choices[0]
    assert list((layout.root / "manifests").glob("import--theirs-*.json"))  # the report is due
    site = tmp_path / "site"
    render(report, site, audio_roots={})
    assert "unknown: predictions of another tool" in (site / "provenance.html").read_text()


def test_only_whole_files_of_the_experiments_questions_are_imported(tmp_path) -> None:
    file = imported_into(tmp_path)
    other = tmp_path / "other.json"
    rows = json.loads((tmp_path / "benchmarks/demo-mmau/questions.json").read_text())
    other.write_text(json.dumps(rows, indent=3))
    options = ["--benchmark", "demo", "--workspace", str(tmp_path), "--into", "demo"]
    with pytest.raises(PipelineError, match=r"has not asked the questions of demo .*but demo-mmau"):
        main([str(file), "--questions", str(other), *options])
    file.write_text("\n".join(file.read_text().splitlines()[1:]))
    questions = str(tmp_path / "benchmarks/demo-mmau/questions.json")
    with pytest.raises(PipelineError, match="leaves questions out: only a whole scored file"):
        main([str(file), "--questions", questions, "--allow-partial", *options])


def test_second_numbers_stand_below_the_leading_ones(
    files: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictions, questions = files
    (tmp_path / "known").mkdir()
    (tmp_path / "known/errata.txt").write_text("q4: wrong gold")
    known = "name: known\nrule: mmsu\nerrata: errata.txt\n"
    (tmp_path / "known/known.yaml").write_text(known)
    monkeypatch.setattr("storage.benchmarks.published.FOLDER", tmp_path / "known")
    main([str(predictions), "--benchmark", "known", "--questions", str(questions)])
    said = capsys.readouterr().out
    # Of q1 to q3, each rule has two; of the four answers, MMSU's reads the letter A alone.
    assert "without listed errata (n = 3): official 66.67, strict 66.67" in said
    assert "by MMSU's own rule: 1 right of 1 readable answers" in said
    assert said.index("why (strict)") < said.index("without listed errata")
