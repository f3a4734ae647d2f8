from reports.numbers.story import variants
from reports.sheets import TrainingSheet


def training(name: str, *, seed: int = 42, prompt: str = "answer", **settings) -> TrainingSheet:
    return TrainingSheet(
        name=name,
        method="grpo",
        variant="full",
        prompt=prompt,
        seed=seed,
        start_model="m",
        evaluated=True,
        settings={"grpo": {"beta": 0.04}, "max_steps": 10, **settings},
    )


def test_trainings_of_two_seeds_are_one_group():
    (group,) = variants([training("a"), training("b", seed=43)])
    assert group.setting == "seed"
    assert group.members == {"a": "42", "b": "43"}


def test_a_nested_setting_is_named_by_its_key_and_a_third_value_joins():
    found = variants(
        [training("a"), training("b", grpo={"beta": 0.0}), training("c", grpo={"beta": 0.1})]
    )
    assert [(group.setting, set(group.members.values())) for group in found] == [
        ("grpo.beta", {"0.04", "0.0", "0.1"})
    ]


def test_trainings_that_differ_in_two_settings_are_no_group():
    assert variants([training("a"), training("b", seed=43, prompt="think")]) == []


def test_a_training_stands_in_a_group_of_each_setting():
    found = variants([training("a"), training("b", seed=43), training("c", prompt="think")])
    assert {group.setting: set(group.members) for group in found} == {
        "seed": {"a", "b"},
        "prompt": {"a", "c"},
    }


def test_a_prompt_is_one_setting_whatever_of_it_differs():
    """Records hold the whole prompt: its name, text, form and rules made four differences."""
    texts = {"answer": "{question} {choices}", "think": "Think. {question} {choices}"}
    asked = [
        training(name, prompt=name).model_copy(
            update={"settings": {"prompt": {"name": name, "text": text, "extract": [name]}}}
        )
        for name, text in texts.items()
    ]
    assert [group.setting for group in variants(asked)] == ["prompt"]


def test_one_that_recorded_nothing_yet_is_left_out():
    early = training("b").model_copy(update={"settings": {}})
    assert variants([training("a"), early]) == []
