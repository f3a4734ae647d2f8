"""The first screen: what it claims, by rule, and which part is missing with which evidence."""

import re
from pathlib import Path

import pytest

from benchmarks.synthetic_experiment import write_experiment
from reports.config import ReportConfig
from reports.numbers.comparisons import matrices
from reports.numbers.story import Story, stories
from reports.read import read_report
from reports.report import Report
from reports.site.render import render
from storage.records.evaluation import list_runs
from tests.reports.site.test_site import text_of

MINI = "mmau-test-mini-original"


def told(report: Report) -> Story:
    return stories(report, matrices(report))[0]


def first_screen(report: Report, folder: Path) -> str:
    render(report, folder, audio_roots={})
    return text_of(folder / "index.html").partition("Leaderboard")[0]


def two_methods(workspace: Path, *, silent: str = "", **more) -> Report:
    """GRPO and LoRA SFT on 300 questions.

    Args:
        workspace: Where to.
        silent: Evaluations of models whose key begins so are deleted.
        more: Of `write_experiment`.
    """
    settings = {"sft": {"lora": {"rank": 16}, "prompt": "plain"}}
    size = {"num_questions": 300, "benchmarks": (MINI,), "with_controls": True} | more
    trainings = size.pop("trainings", ("grpo", "sft"))
    layout, profile = write_experiment(workspace, trainings=trainings, settings=settings, **size)
    for folder, run in list_runs(layout.evaluations):
        if silent and run.name.startswith(silent):
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
    return read_report(layout, ReportConfig(), settings=profile)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Report, str]:
    folder = tmp_path_factory.mktemp("story")
    report = two_methods(folder)
    return report, first_screen(report, folder / "site")


def test_the_claim_names_start_end_benchmark_and_the_rival_that_is_beaten(whole):
    report, text = whole
    story = told(report)
    start = 100 * (story.lead.tally.accuracy - story.gain.test.difference)
    claim = (
        f"GRPO lifts tiny from {start:.1f} to {100 * story.lead.tally.accuracy:.1f} % on {MINI} "
        f"and beats SFT, LoRA , by {100 * story.rivals[0].test.difference:.1f} points"
    )
    assert story.rivals[0].is_sure
    assert claim in text


def test_the_size_stands_with_interval_p_and_what_one_seed_allows(whole):
    report, text = whole
    low, high = told(report).gain.test.interval
    assert (
        f"[ {100 * low:.1f}, {100 * high:.1f} ]" in text
        or f"[{100 * low:.1f}, {100 * high:.1f}]" in text
    )
    assert "(p < .001)" in text
    assert "beyond the noise of the questions, one seed each." in text
    assert "one seed a training, so the chance of training again is not known" in text


def test_hearing_the_published_value_the_cost_and_the_clips_are_said(whole):
    report, text = whole
    lead = told(report).lead
    kept = lead.kept.accuracy
    assert f"With silence it keeps {100 * kept:.1f} %" in text
    assert f"so {100 * (lead.tally.accuracy - kept):.1f} points come from hearing" in text
    assert re.search(r"The published 64.5 lies (within|below|above) our interval", text)
    assert "Training took 1.5 minutes of devices." in text
    assert "6 of 6 steps evaluated" in text
    assert "185 of 200 training clips usable ( 15 lost )" in text


def test_without_the_start_models_answers_no_gain_is_claimed(tmp_path):
    report = two_methods(tmp_path, silent="tiny on")
    text = first_screen(report, tmp_path / "site")
    assert told(report).gain is None
    assert "GRPO reaches " in text
    assert "lifts" not in text
    assert "gain alike" not in text
    assert "start model not evaluated, so no gain is given" in text


def test_with_one_method_nobody_is_beaten(tmp_path):
    report = two_methods(tmp_path, trainings=("grpo",))
    text = first_screen(report, tmp_path / "site")
    assert "beats" not in text
    assert "level with" not in text
    assert "GRPO lifts tiny" in text


def test_without_a_silence_control_hearing_is_not_known(tmp_path):
    report = two_methods(tmp_path, with_controls=False)
    text = first_screen(report, tmp_path / "site")
    assert "With silence" not in text
    assert "Does it hear?" not in text
    assert "no silence control, so whether it hears is not known" in text


def test_without_a_row_of_the_paper_it_is_not_named(tmp_path):
    report = two_methods(tmp_path, benchmarks=("demo-mmau",))
    text = first_screen(report, tmp_path / "site")
    assert "The published" not in text
    assert "paper" not in text.partition("Numbers")[0].replace("paper's value as a dash", "")


def test_without_times_and_clips_neither_is_counted(tmp_path):
    report = two_methods(tmp_path, with_curves=False, with_fetch=False)
    text = first_screen(report, tmp_path / "site")
    assert "Training took" not in text
    assert "What did it cost" not in text
    assert "training clips usable" not in text


def test_a_training_without_times_is_named_beside_the_sum(tmp_path):
    report = two_methods(tmp_path)
    sft = report.training("sft").model_copy(update={"device_hours": None})
    trainings = (report.training("grpo"), sft)
    text = first_screen(report.model_copy(update={"trainings": trainings}), tmp_path / "site")
    assert "Training took 0.8 minutes of devices, SFT, LoRA not counted." in text


def test_on_few_questions_nothing_moves_measurably_and_no_task_gains(tmp_path):
    report = two_methods(tmp_path, num_questions=9)
    text = first_screen(report, tmp_path / "site")
    assert "GRPO does not measurably move tiny from" in text
    assert ", level with SFT, LoRA" in text
    assert "gain alike" not in text
    assert "within the noise of the questions" in text


def test_a_task_gains_most_only_where_it_beats_the_next_beyond_noise(whole, tmp_path):
    report, text = whole
    assert "All tasks gain alike: " in text
    evaluations = []
    tasks = [question.task for question in report.tests[0].questions]
    for evaluation in report.evaluations:
        marks = evaluation.marks
        if evaluation.model == "tiny" and evaluation.key.control is None:
            marks = {
                name: "".join(
                    "0" if task == "music" else mark for mark, task in zip(each, tasks, strict=True)
                )
                for name, each in marks.items()
            }
        evaluations.append(evaluation.model_copy(update={"marks": marks}))
    changed = report.model_copy(update={"evaluations": tuple(evaluations)})
    assert "Music gains most: music +" in first_screen(
        Report.model_validate(changed.model_dump()), tmp_path / "site"
    )


def test_what_is_only_partly_evaluated_is_left_out_and_said(tmp_path):
    steps = {"max_steps": 30, "save_steps": 10}
    layout, profile = write_experiment(
        tmp_path, trainings=("grpo", "sft"), settings={"grpo": steps, "sft": steps}
    )
    part = next(
        stored for stored in list_runs(layout.evaluations) if stored.run.key.model == "sft-step-30"
    )
    (part.folder / "score.json").unlink()
    answers = (part.folder / "answers.jsonl").read_text().splitlines(keepends=True)
    (part.folder / "answers.jsonl").write_text("".join(answers[:50]))
    text = first_screen(read_report(layout, ReportConfig(), settings=profile), tmp_path / "site")
    assert "5 of 6 steps evaluated ; sft-step-30: 50 of 60, left out" in text


def write_released(tmp_path, benchmark):
    """Profile `released`: two models of the hub, and none is trained."""
    layout, profile = write_experiment(
        tmp_path,
        num_questions=300,
        benchmarks=(benchmark,),
        trainings=(),
        start_models=("r1-aqa", "base"),
    )
    profile["evaluate"]["models"] = [
        {"name": name, "model": name, "prompt": "answer"} for name in ("r1-aqa", "base")
    ]
    hub = {"r1-aqa": "mispeech/r1-aqa", "base": "Qwen/Qwen2-Audio-7B-Instruct"}
    for folder, run in list_runs(layout.evaluations):
        model = run.model.model_copy(update={"path": hub[run.key.model]})
        run.model_copy(update={"model": model}).write(folder / "run.json")
    return read_report(layout, ReportConfig(), settings=profile)


def test_a_report_without_training_says_whether_the_published_value_agrees(tmp_path):
    report = write_released(tmp_path, MINI)
    papers = {line.evaluation.model: line.paper.average for line in told(report).standings}
    assert papers == {"r1-aqa": 64.5, "base": 49.2}
    text = first_screen(report, tmp_path / "site")
    assert re.search(rf"(r1-aqa|base) reaches [\d.]+ % on {MINI}, level with", text)
    assert re.search(r"The published (64.5|49.2) lies (within|below|above) our interval", text)
    assert "2 models evaluated" in text
    assert "seed" not in text


def test_a_start_model_is_held_to_its_own_published_row_and_not_to_that_of_what_it_became(tmp_path):
    report = write_released(tmp_path, "mmar-2025-05")
    papers = {line.evaluation.model: line.paper for line in told(report).standings}
    assert (papers["base"].model, papers["base"].average) == ("Qwen2-Audio-Instruct (8.4B)", 30.0)
    assert papers["r1-aqa"].average == 50.8


def test_of_ten_trainings_only_those_that_the_sentence_names_are_coloured(tmp_path):
    names = tuple(f"grpo-{index}" for index in range(10))
    layout, profile = write_experiment(
        tmp_path, num_questions=30, steps=(10, 20), trainings=(*names, "sft"), with_curves=False
    )
    report = read_report(layout, ReportConfig(), settings=profile)
    render(report, tmp_path / "site", audio_roots={})
    html = (tmp_path / "site" / "index.html").read_text()
    chart = re.search(r'<svg class="wide".*?</svg>', html, re.DOTALL)[0]
    assert len(re.findall(r'<g class="s other t\d+"><path class="line"', chart)) == 9
    assert chart.count('class="band"') == 2
