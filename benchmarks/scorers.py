"""What the two scorers make of right and wrong answers in many forms, on a real file of questions.

`python -m benchmarks.scorers QUESTIONS.json [--json]`, e.g. MMAU's mmau-test-mini.json. Says what a
model that is always right scores by the form of its answers, what rules without ears score, how
many wrong choices the official rule takes for right, and how many predictions a second are judged.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from model.score.scorers import Prediction, is_right_officially, judge_all
from storage.benchmarks.parse import read_questions
from storage.manifest import file_digest
from storage.records.question import Question

Form = Callable[[Question], str]


def letter_of(question: Question) -> str:
    """The right choice's letter."""
    return chr(ord("A") + question.choices.index(right(question)))


def right(question: Question) -> str:
    """The right choice's text."""
    return question.answer or ""


def first_choice(question: Question) -> str:
    """The choice shown first."""
    return question.choices[0]


def longest_choice(question: Question) -> str:
    """The choice with the most characters; the first of them where several have."""
    return max(question.choices, key=len)


FORMS: dict[str, Form] = {
    "{text}": right,
    "{letter}": letter_of,
    "{letter}. {text}": lambda q: f"{letter_of(q)}. {right(q)}",
    "({letter}) {text}": lambda q: f"({letter_of(q)}) {right(q)}",
    "The answer is {text}.": lambda q: f"The answer is {right(q)}.",
    "{TEXT}": lambda q: right(q).upper(),
    "{text} in three lines": lambda q: f"\n{right(q)}\n",
    "{first choice} or {text}": lambda q: f"{first_choice(q)} or {right(q)}",
    "always the first choice": first_choice,
    "always the longest choice": longest_choice,
    "nothing": lambda _q: "",
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("questions", type=Path)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    questions = read_questions(options.questions)
    started_s = time.perf_counter()
    table = {name: right_of(form, questions) for name, form in FORMS.items()}
    seconds = time.perf_counter() - started_s
    numbers = {
        "questions": len(questions),
        "sha256": file_digest(options.questions),
        "right_by_form": table,
        "equal_to_the_answer": {
            "first choice": sum(first_choice(q) == q.answer for q in questions),
            "longest choice": sum(longest_choice(q) == q.answer for q in questions),
        },
        "wrong_choices_taken_for_right": num_wrong_taken(questions),
        "questions_with_duplicate_choices": sum(
            len(set(question.choices)) < len(question.choices) for question in questions
        ),
        "predictions_per_s": round(len(FORMS) * len(questions) / seconds),
    }
    print(f"{len(questions)} questions, sha256 {numbers['sha256']}\n")
    print(f"{'answer':<28}{'official':>10}{'strict':>10}{'unparsed':>10}")
    for name, counts in table.items():
        print(f"{name:<28}" + "".join(f"{count:>10}" for count in counts.values()))
    for name in ("equal_to_the_answer", "wrong_choices_taken_for_right"):
        print(f"{name.replace('_', ' ')}: {numbers[name]}")
    print(f"{numbers['predictions_per_s']} predictions a second, both scorers")
    if options.json:
        print(json.dumps(numbers))


def right_of(form: Form, questions: Sequence[Question]) -> dict[str, int]:
    """Right answers under each scorer, where every question is answered in one form."""
    said = {question.id: Prediction(form(question), form(question)) for question in questions}
    verdicts = judge_all(questions, said)
    return {
        "official": sum(verdict.official is True for verdict in verdicts),
        "strict": sum(verdict.strict is True for verdict in verdicts),
        "unparsed": sum(not verdict.parsed for verdict in verdicts),
    }


def num_wrong_taken(questions: Sequence[Question]) -> int:
    """Wrong choices that the official rule takes for right: the same words in another order."""
    return sum(
        is_right_officially(right(question), choice, question.choices)
        for question in questions
        for choice in question.choices
        if choice != question.answer
    )


if __name__ == "__main__":
    main()
