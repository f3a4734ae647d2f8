"""MMAU's own questions: what rules without a model score, and a perfect model by form of answer."""

from pathlib import Path

import pytest

from model.score.scorers import Prediction, is_right_officially, judge_all
from storage.benchmarks.parse import read_questions
from storage.benchmarks.published import prepare_questions
from storage.config import BenchmarkConfig

pytestmark = pytest.mark.network  # the questions are not ours to keep here

COUNTS = {
    "mmau-test-mini-original": {
        "first-choice": {"official": 378, "strict": 377},
        "longest-choice": {"official": 346, "strict": 346},
        "The answer is {}.": 928,
    },
    "mmau-test-mini-v05.15.25": {
        "first-choice": {"official": 398, "strict": 395},
        "longest-choice": {"official": 396, "strict": 394},
        "The answer is {}.": 907,
    },
}


@pytest.mark.parametrize("name", COUNTS)
def test_mmau_counts_what_was_computed_from_its_published_script(name: str, tmp_path: Path) -> None:
    questions = read_questions(prepare_questions(BenchmarkConfig(name=name), tmp_path))
    expected = dict(COUNTS[name])
    sentence = expected.pop("The answer is {}.")
    rules = {
        "first-choice": lambda question: question.choices[0],
        "longest-choice": lambda question: max(question.choices, key=len),
    }
    for rule, choose in rules.items():
        said = {one.id: Prediction(choose(one), choose(one)) for one in questions}
        verdicts = judge_all(questions, said)
        found = {
            scorer: sum(verdict.of(scorer) is True for verdict in verdicts)
            for scorer in ("official", "strict")
        }
        assert found == expected[rule]
    right = {
        form: sum(
            is_right_officially(one.answer or "", form.format(one.answer), one.choices)
            for one in questions
        )
        for form in ("{}", "The answer is {}.")
    }
    assert right == {"{}": 1000, "The answer is {}.": sentence}
