import json
from dataclasses import replace
from pathlib import Path

from model.score.control_report import (
    baselines,
    contribution,
    order_consistency,
    right_where_deaf_is_wrong,
    write_control_report,
)
from model.score.controls import asked_questions
from model.score.scorers import Prediction, Tally, Verdict, judge_all, write_verdicts
from storage.records.question import Question


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
    assert counted["overall"] == {"num_heard": 3, "num_control": 1, "num_questions": 4}
    assert counted["task"]["sound"] == {"num_heard": 2, "num_control": 1, "num_questions": 2}
    assert counted["task"]["music"] == {"num_heard": 1, "num_control": 0, "num_questions": 2}


def test_the_questions_that_need_audio_are_those_missed_under_silence() -> None:
    assert right_where_deaf_is_wrong(HEARD, SILENT, "strict") == Tally(2, 3)


def test_an_answer_that_follows_the_place_is_not_consistent() -> None:
    """Always "A": the first choice in every order, so never the same text twice."""
    proper = said("A", "dog", "dog", "neither")
    shifted = {"cyclic-shift-1": said("A", "dog", "cat", "neither", control="cyclic-shift-1")}
    assert order_consistency(QUESTIONS, proper, shifted) == {
        "num_consistent": 1,
        "num_right_in_all": 1,
        "num_questions": 4,
        "num_orders": 2,
    }


def test_a_letter_that_follows_the_text_is_consistent() -> None:
    proper = said("A", "A", "B", "B")
    shifted = {"cyclic-shift-1": said("B", "B", "A", "A", control="cyclic-shift-1")}
    found = order_consistency(QUESTIONS, proper, shifted)
    assert (found["num_consistent"], found["num_right_in_all"]) == (4, 2)


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
    assert found == {
        "num_consistent": 2,
        "num_right_in_all": 2,
        "num_questions": 3,
        "num_orders": 4,
    }


def test_no_answer_is_not_right_where_answers_are_withheld() -> None:
    questions = [replace(QUESTIONS[0], answer=None)]
    silent = judge_all(questions, {"q1": Prediction("neither", "neither")})
    found = order_consistency(questions, silent, {"cyclic-shift-1": silent})
    assert (found["num_consistent"], found["num_right_in_all"]) == (0, 0)


def test_the_trivial_baselines_are_scored_like_models() -> None:
    questions = [*QUESTIONS[:3], make("q4", "music", "cat", "dog", "a bird")]
    found = baselines(questions, ["strict"])
    assert found["first-choice"]["strict"]["overall"] == {"num_correct": 3, "num_questions": 4}
    assert found["longest-choice"]["strict"]["task"]["music"]["num_correct"] == 1


def write_runs(folder: Path, **runs: list[Verdict]) -> Path:
    for name, verdicts in runs.items():
        path = folder / name.replace("__", "+").replace("_", "-")
        path.mkdir(parents=True)
        write_verdicts(path / "verdicts.jsonl", verdicts)
    return folder


def test_the_report_is_written_beside_the_runs(tmp_path) -> None:
    base = write_runs(tmp_path / "base", answer__silence=said("cat", "cat", "dog", "dog"))
    folder = write_runs(
        tmp_path / "grpo-step-100",
        answer=HEARD,
        answer__silence=SILENT,
        answer__cyclic_shift_1=said("dog", "dog", "dog", "dog", control="cyclic-shift-1"),
        think=SILENT,
    )
    record = write_control_report(
        folder, QUESTIONS, prompt="answer", scorers=["strict"], start_model=base
    )
    assert record == json.loads((folder / "controls.json").read_text())
    assert set(record["contribution"]["strict"]) == {"silence"}
    assert record["needs_audio"]["strict"] == {"num_correct": 2, "num_questions": 2}
    assert record["order"]["num_consistent"] == 3
    assert write_control_report(folder, QUESTIONS, prompt="think", scorers=["strict"]) is None
    assert write_control_report(base, QUESTIONS, prompt="answer", scorers=["strict"]) is None
