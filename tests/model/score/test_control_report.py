from dataclasses import replace
from pathlib import Path

from model.score.control_report import (
    contribution,
    order_consistency,
    right_where_deaf_is_wrong,
    write_control_report,
)
from model.score.controls import asked_questions
from model.score.scorers import Prediction, judge_all
from storage.records.evaluation import (
    ControlReport,
    Heard,
    OrderConsistency,
    RunKey,
    Tally,
    Verdict,
    write_verdicts,
)
from storage.records.question import Question
from tests.storage.records.made_run import make_run


def make(name: str, task: str, *choices: str) -> Question:
    return Question(
        id=name,
        clips=(f"{name}.wav",),
        question="Who?",
        choices=choices or ("dog", "cat"),
        answer="dog",
        task=task,
        category="Reasoning",
        sub_category="Counting",
        difficulty="easy",
        dataset="AudioSet",
        split="test-mini",
    )


QUESTIONS = [make("q1", "sound"), make("q2", "sound"), make("q3", "music"), make("q4", "music")]


def said(*texts: str, control: str | None = None) -> list[Verdict]:
    predictions = {q.id: Prediction(t, t) for q, t in zip(QUESTIONS, texts, strict=True)}
    return judge_all(asked_questions(QUESTIONS, control), predictions)


HEARD = said("dog", "dog", "dog", "cat")
SILENT = said("dog", "cat", "cat", "cat")


def test_the_audio_contribution_is_what_silence_takes_away() -> None:
    counted = contribution(QUESTIONS, HEARD, SILENT, "strict")
    assert counted.overall == Heard(num_heard=3, num_control=1, num_questions=4)
    by_task = counted.groups["task"]
    assert by_task["sound"] == Heard(num_heard=2, num_control=1, num_questions=2)
    assert by_task["music"] == Heard(num_heard=1, num_control=0, num_questions=2)


def test_the_questions_that_need_audio_are_those_missed_under_silence() -> None:
    assert right_where_deaf_is_wrong(HEARD, SILENT, "strict") == Tally(2, 3)


def test_an_answer_that_follows_the_place_is_not_consistent() -> None:
    """Always "A": the first choice in every order, so never the same text twice."""
    proper = said("A", "dog", "dog", "neither")
    shifted = {"cyclic-shift-1": said("A", "dog", "cat", "neither", control="cyclic-shift-1")}
    assert order_consistency(QUESTIONS, proper, shifted) == OrderConsistency(
        num_consistent=1, num_right_in_all=1, num_questions=4, num_orders=2
    )


def test_a_letter_that_follows_the_text_is_consistent() -> None:
    proper = said("A", "A", "B", "B")
    shifted = {"cyclic-shift-1": said("B", "B", "A", "A", control="cyclic-shift-1")}
    found = order_consistency(QUESTIONS, proper, shifted)
    assert (found.num_consistent, found.num_right_in_all) == (4, 2)


def test_a_question_with_few_choices_has_as_many_orders_as_choices() -> None:
    """Shifts 2 and 3 of two choices ask orders that were asked: noise in them says nothing."""
    questions = [
        make("two", "sound", "dog", "cat"),
        make("three", "sound", "dog", "cat", "bird"),
        make("four", "sound", "dog", "cat", "bird", "fish"),
    ]

    def run(shift: int, *texts: str) -> list[Verdict]:
        asked = asked_questions(questions, f"cyclic-shift-{shift}")
        said = {q.id: Prediction(t, t) for q, t in zip(questions, texts, strict=True)}
        return judge_all(asked, said)

    shifted = {
        "cyclic-shift-1": run(1, "dog", "dog", "dog"),
        "cyclic-shift-2": run(2, "cat", "dog", "dog"),
        "cyclic-shift-3": run(3, "cat", "cat", "cat"),
    }
    found = order_consistency(questions, run(0, "dog", "dog", "dog"), shifted)
    assert found == OrderConsistency(
        num_consistent=2, num_right_in_all=2, num_questions=3, num_orders=4
    )


def test_no_answer_is_not_right_where_answers_are_withheld() -> None:
    questions = [replace(QUESTIONS[0], answer=None)]
    silent = judge_all(questions, {"q1": Prediction("neither", "neither")})
    found = order_consistency(questions, silent, {"cyclic-shift-1": silent})
    assert (found.num_consistent, found.num_right_in_all) == (0, 0)


def write_runs(evaluation: Path, model: str, **runs: list[Verdict]) -> RunKey:
    """Folders of one model; `answer__silence` is the control `silence` of the prompt `answer`."""
    for name, verdicts in runs.items():
        prompt, _, control = name.replace("__", "+").replace("_", "-").partition("+")
        run = make_run(model=model, prompt=prompt, control=control or None)
        folder = evaluation / run.key.folder
        run.write(folder / "run.json")
        write_verdicts(folder / "verdicts.jsonl", verdicts)
        (folder / "score.json").touch()
    return RunKey(model=model, benchmark="demo", prompt="answer")


def test_the_report_is_written_beside_the_proper_run(tmp_path) -> None:
    base = write_runs(tmp_path, "base", answer__silence=said("cat", "cat", "dog", "dog"))
    proper = write_runs(
        tmp_path,
        "grpo-step-100",
        answer=HEARD,
        answer__silence=SILENT,
        answer__cyclic_shift_1=said("dog", "dog", "dog", "dog", control="cyclic-shift-1"),
        think=SILENT,
    )
    report = write_control_report(tmp_path, proper, QUESTIONS, scorers=["strict"], start="base")
    assert report == ControlReport.read(tmp_path / proper.folder / "controls.json")
    assert set(report.contribution["strict"]) == {"silence"}
    assert report.needs_audio["strict"] == Tally(2, 2)
    assert report.order.num_consistent == 3
    think = proper.model_copy(update={"prompt": "think"})
    assert write_control_report(tmp_path, think, QUESTIONS, scorers=["strict"]) is None
    assert write_control_report(tmp_path, base, QUESTIONS, scorers=["strict"]) is None


def test_a_second_prompts_controls_leave_the_firsts_alone(tmp_path) -> None:
    """controls.json lay beside both prompts' folders: the second overwrote the first's."""
    first = write_runs(tmp_path, "grpo-step-100", answer=HEARD, answer__silence=SILENT)
    write_runs(tmp_path, "grpo-step-100", think=HEARD, think__silence=HEARD)
    second = first.model_copy(update={"prompt": "think"})
    reports = [
        write_control_report(tmp_path, key, QUESTIONS, scorers=["strict"])
        for key in (first, second)
    ]
    written = [
        ControlReport.read(tmp_path / key.folder / "controls.json") for key in (first, second)
    ]
    assert written == reports
    assert [report.contribution["strict"]["silence"].overall.num_control for report in written] == [
        1,
        3,
    ]
