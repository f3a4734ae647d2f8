"""What a model's name means, and keys that tell models apart."""

import pytest

from storage.errors import PipelineError
from storage.records.model import (
    FolderOrHub,
    FromTraining,
    Random,
    folder_key,
    hub_key,
    parse_name,
)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("training:warm-start", FromTraining("warm-start", None)),
        ("training:grpo@1000", FromTraining("grpo", 1000)),
        ("random:tiny", Random("tiny")),
        ("Qwen/Qwen2-Audio-7B", FolderOrHub("Qwen/Qwen2-Audio-7B")),
    ],
)
def test_a_name_is_a_training_a_random_model_a_folder_or_a_hub_name(text, meant):
    assert parse_name(text) == meant


def test_a_prefix_without_a_name_is_refused():
    with pytest.raises(PipelineError, match="names nothing after 'training:'"):
        parse_name("training:")


def test_folders_of_one_name_have_keys_of_their_own():
    """X/final and Y/final shared one evaluation folder and overwrote each other."""
    assert folder_key("final", "a" * 64) != folder_key("final", "b" * 64)
    assert hub_key("Qwen/Qwen2-Audio-7B") == "Qwen--Qwen2-Audio-7B"
