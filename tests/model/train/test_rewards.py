"""What completions earn, and what the original's rule pays for."""

import pytest

from model.config import GrpoConfig
from model.prompt import PROMPTS
from model.train.rewards import math_verify_score, rewards_of
from storage.errors import PipelineError

ANSWER = PROMPTS["answer"]
# Wrong choices that the original's rule pays for: the last number after a space decides.
FALSELY_PAID = [
    ("2 men and 1 woman", "2 women and 1 man"),
    ("May 3", "June 3"),
    ("Channel 5", "News 5"),
    ("more than 3", "less than 3"),
    ("Bear 1 roaring", "Lion 1 roaring"),
]


def is_right(completion: str, answer: str, **settings: bool) -> bool:
    accuracy, _ = rewards_of(GrpoConfig.model_validate(settings), ANSWER)
    return accuracy.score(completion, {"answer": answer}) == 1


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("<answer>Rain</answer>", True),
        ("<answer> Rain\n</answer>", True),
        ("I hear <answer>Rain</answer> now", True),
        ("Rain", True),  # as in the original: without a tag, the whole text is compared
        ("<answer>rain</answer>", False),
        ("<answer>Rain.</answer>", False),
        ("<answer>Rainy</answer>", False),
        ("<answer></answer>", False),
    ],
)
def test_the_answer_is_compared_as_text(completion: str, *, right: bool) -> None:
    assert is_right(completion, "Rain") is right


def test_case_and_final_punctuation_can_be_ignored() -> None:
    assert is_right("<answer>rain</answer>", "Rain", ignore_case=True)
    assert is_right("<answer>Rain!</answer>", "Rain.", ignore_final_punctuation=True)
    assert not is_right("<answer>rain.</answer>", "Rain", ignore_case=True)


@pytest.mark.parametrize(
    ("completion", "prompt", "expected"),
    [
        ("<answer>Rain</answer>", "answer", True),
        ("<answer>Rain\n</answer>", "answer", True),
        (" <answer>Rain</answer>", "answer", False),
        ("<answer>Rain</answer> and more", "answer", False),
        ("Rain", "answer", False),
        ("<think>drops</think><answer>Rain</answer>", "think", True),
        ("<think>drops\nfall</think>\n<answer>Rain</answer>", "think", True),
        ("<answer>Rain</answer>", "think", False),
        ("Rain", "plain", True),
        ("  ", "plain", False),
    ],
)
def test_the_format_is_that_of_the_prompt(completion: str, prompt: str, *, expected: bool) -> None:
    _, form = rewards_of(GrpoConfig(), PROMPTS[prompt])
    assert form.score(completion, {}) == expected


def test_a_line_break_in_the_tag_is_accepted_by_both_rewards() -> None:
    """The original's format accepted it and its accuracy did not: it earned 1 of 2."""
    accuracy, form = rewards_of(GrpoConfig(), ANSWER)
    example = {"answer": "Rain"}
    completion = "<answer>Rain\n</answer>"
    assert accuracy.score(completion, example) == form.score(completion, example) == 1


@pytest.mark.parametrize(("answer", "wrong"), FALSELY_PAID)
def test_only_the_originals_rule_pays_for_a_wrong_choice_with_the_same_last_number(
    answer: str, wrong: str
) -> None:
    completion = f"<answer>{wrong}</answer>"
    exact, _ = rewards_of(GrpoConfig(), ANSWER)
    original, _ = rewards_of(GrpoConfig(accuracy_rule="math-verify"), ANSWER)
    assert exact.score(completion, {"answer": answer}) == 0
    assert original.score(completion, {"answer": answer}) == 1


def test_the_originals_rule_pays_for_right_choices_too() -> None:
    assert math_verify_score("<answer>dog barking</answer>", "dog barking") == 1
    assert math_verify_score("<answer>2 dogs</answer>", "2 cats") == 0


def test_weights_and_an_own_reward_are_taken_from_the_settings() -> None:
    rewards = rewards_of(
        GrpoConfig(accuracy_weight=2.0, format_weight=0.5, reward="operator.contains"),
        ANSWER,
    )
    assert [(r.name, r.weight) for r in rewards] == [("accuracy", 2), ("format", 0.5), ("own", 1)]


def test_what_an_own_module_fails_to_import_is_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "rewards.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PipelineError, match="No module named 'no_such_package'"):
        rewards_of(GrpoConfig(reward="own.rewards.score"), ANSWER)


@pytest.mark.parametrize("path", ["no_such_module.f", "math.no_such_function", "nodots", "math.pi"])
def test_an_own_reward_that_is_no_function_is_refused(path: str) -> None:
    with pytest.raises(PipelineError, match=path):
        rewards_of(GrpoConfig(reward=path), ANSWER)
