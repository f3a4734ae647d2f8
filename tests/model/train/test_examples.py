"""Order, choices and targets of the draws; features and their cache."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from model.config import SftConfig, TrainConfig
from model.network.features import FeatureStore, mel_features
from model.network.loading import load_processor
from model.network.qwen2_audio import num_audio_tokens
from model.train.examples import Example, check_examples, read_examples
from model.train.order import Draws, as_batch, read_batches
from model.train.sft_step import add_targets
from storage.errors import PipelineError
from tests.model.conftest import write_training_lines


@pytest.fixture
def processor(tiny_model: Path) -> Any:
    return load_processor(tiny_model)


def make_draws(processor: Any, lines: Path, **settings: Any) -> Draws:
    config = TrainConfig(name="small", method="sft", precision="fp32", **settings)
    return Draws(read_examples(lines), processor, config, num_draws=30)


def test_every_epoch_draws_each_example_once_in_another_order(
    processor: Any, training_lines: Path
) -> None:
    draws = make_draws(processor, training_lines)
    ids = [draws[i].example.id for i in range(24)]
    assert sorted(ids[:12], key=int) == sorted(ids[12:], key=int) == [str(n) for n in range(12)]
    assert ids[:12] != ids[12:]
    again = make_draws(processor, training_lines)
    assert [again[i].example.id for i in range(24)] == ids


def test_a_resumed_run_goes_on_where_it_was(processor: Any, training_lines: Path) -> None:
    whole = make_draws(processor, training_lines, shuffle_choices=True)
    config = TrainConfig(prompts_per_device=2, dataloader_workers=0)
    found: list[tuple[int, Example]] = []
    for rank in (0, 1):
        again = make_draws(processor, training_lines, shuffle_choices=True)
        for drawn in read_batches(again, config, start=6, pad_id=0, rank=rank, num_processes=2):
            found += zip(drawn.positions, drawn.examples, strict=True)
    expected = [(position, whole[position].example) for position in range(6, 30)]
    assert sorted(found, key=lambda pair: pair[0]) == expected


def test_a_mixture_draws_each_source_by_its_share_and_goes_on_where_it_was(
    processor: Any, training_lines: Path
) -> None:
    rows = [json.loads(line) for line in training_lines.read_text().splitlines()]
    # Three rows of one source and nine of another, half of the draws each.
    weighted = [{**row, "weight": 2.0 if row["id"] < 3 else 0.666667} for row in rows]
    training_lines.write_text("".join(json.dumps(row) + "\n" for row in weighted))
    draws = make_draws(processor, training_lines)
    epoch = [int(draws[i].example.id) for i in range(12)]
    assert sorted(id_ for id_ in epoch if id_ < 3) == [0, 0, 1, 1, 2, 2]
    assert len({id_ for id_ in epoch if id_ >= 3}) == 6
    resumed = make_draws(processor, training_lines)
    assert [int(resumed[i].example.id) for i in range(7, 12)] == epoch[7:]
    assert [int(draws[i].example.id) for i in range(12, 24)] != epoch


def twice_or_never(line: dict[str, Any]) -> int:
    return 2 if line["id"] < 3 else line["id"] == 7


def minus(line: dict[str, Any]) -> int:
    return -int(line["id"])


def test_examples_are_repeated_and_left_out_as_the_user_s_function_says(
    processor: Any, training_lines: Path
) -> None:
    config = TrainConfig(example_repeats=f"{__name__}.twice_or_never")
    examples = read_examples(training_lines, config.example_repeats)
    checked = check_examples(examples, processor, config)
    assert [example.id for example in checked.kept] == ["0", "0", "1", "1", "2", "2", "7"]
    assert [drop["id"] for drop in checked.dropped] == ["3", "4", "5", "6", "8", "9", "10", "11"]
    assert checked.dropped[0]["reason"] == "left-out"


def test_a_number_of_repeats_below_zero_is_refused_with_its_line(training_lines: Path) -> None:
    with pytest.raises(PipelineError, match=r"train\.jsonl:2: .*minus gives -1"):
        read_examples(training_lines, f"{__name__}.minus")


def test_clips_too_short_leave_the_examples_and_longer_ones_than_are_heard_are_named(
    processor: Any, tmp_path: Path
) -> None:
    """0.02 s ended a training in a tensor error; the tiny model hears 3 s."""
    lines = write_training_lines(tmp_path, 4)
    clips = sorted((tmp_path / "clips").glob("*.wav"))
    for clip, seconds in zip(clips, (0.02, 0.03, 3.0, 3.01), strict=True):
        soundfile.write(clip, np.zeros(round(seconds * 16_000)), 16_000)
    config = TrainConfig(max_bad_share=0.5)
    checked = check_examples(read_examples(lines), processor, config)
    fault = "0.02 s; the model hears nothing of 0.02 s or less"
    assert checked.dropped == [{"id": "0", "reason": "too-short", "detail": fault}]
    assert [example.id for example in checked.kept] == ["1", "2", "3"]
    assert checked.cut == ["3"]


def test_the_question_is_about_audio_and_the_answer_is_the_choice_at_its_index(
    processor: Any, training_lines: Path
) -> None:
    example = read_examples(training_lines)[6]
    assert example.question == "What is the source of the sound in the audio?"
    assert example.answer == "clicks"  # index 2 of tone, noise, clicks, buzz
    text = processor.tokenizer.decode(make_draws(processor, training_lines)[0].prompt.token_P)
    assert "options: ['tone', 'noise', 'clicks', 'buzz']" in text


def test_shuffled_choices_keep_the_answer_and_change_from_draw_to_draw(
    processor: Any, training_lines: Path
) -> None:
    draws = make_draws(processor, training_lines, shuffle_choices=True)
    shown = [draws[i].example for i in range(24)]
    truth = {example.id: example.answer for example in read_examples(training_lines)}
    assert all(example.answer == truth[example.id] for example in shown)
    assert all(sorted(example.choices) == ["buzz", "clicks", "noise", "tone"] for example in shown)
    assert len({example.choices for example in shown}) > 5


def test_a_warm_start_teaches_random_choices_in_the_stated_share(
    processor: Any, training_lines: Path
) -> None:
    """Share 1 of 4 choices: the target is right by chance in about a quarter of 400 draws."""
    every = make_draws(processor, training_lines, sft=SftConfig(random_target_share=1.0))
    right = [every[i].target == f"<answer>{every[i].example.answer}</answer>" for i in range(400)]
    assert 60 < sum(right) < 140
    none = make_draws(processor, training_lines)
    assert all(none[i].target == f"<answer>{none[i].example.answer}</answer>" for i in range(24))


def test_targets_end_with_the_end_token_and_padding_counts_nothing(
    processor: Any, training_lines: Path
) -> None:
    end = processor.tokenizer.eos_token_id
    draws = make_draws(processor, training_lines, prompt="plain")
    pad_id = processor.tokenizer.pad_token_id
    drawn = as_batch([draws[0], draws[1], draws[2]], pad_id)
    targets = add_targets(drawn, processor, end)
    lengths = targets.mask_B1C.sum(-1)[:, 0]
    for row, length in enumerate(lengths.tolist()):
        tokens = targets.token_B1C[row, 0]
        assert int(tokens[length - 1]) == end
        assert (tokens[length:] == pad_id).all()
        assert processor.tokenizer.decode(tokens[: length - 1]) == draws[row].example.answer


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answer": 4}, "answer 4 is no index of 4 choices"),
        ({"answer": "dog"}, "no index"),
        ({"audio_path": None, "multi_choice": 3}, "TypeError"),
    ],
)
def test_a_malformed_line_is_named(
    tmp_path: Path, training_lines: Path, change: dict[str, Any], said: str
) -> None:
    rows = [json.loads(line) for line in training_lines.read_text().splitlines()]
    rows[1] |= change
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(PipelineError, match=r"train.jsonl:2: ") as refusal:
        read_examples(path)
    assert said in str(refusal.value)


def test_a_stereo_clip_of_another_rate_is_mixed_down_and_resampled(
    processor: Any, tmp_path: Path
) -> None:
    """The original took the first channel; here it is silent, and the sound is in the second."""
    times = np.arange(44_100) / 44_100
    sound = np.sin(2 * np.pi * 440 * times)
    clip = tmp_path / "stereo.wav"
    soundfile.write(clip, np.stack([np.zeros_like(sound), sound], 1), 44_100)
    mel = FeatureStore(processor, memory_mb=0).features(clip)
    assert mel.num_frames == 100  # 1 s
    expected = (np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000) / 2).astype(np.float32)
    difference = mel.mel_MF - mel_features(processor, expected).mel_MF
    assert difference[:, 5:95].abs().mean() < 0.05


def test_features_are_kept_in_memory_up_to_the_size_and_on_disk(
    processor: Any, training_lines: Path, tmp_path: Path
) -> None:
    clips = [example.clip for example in read_examples(training_lines)]
    store = FeatureStore(processor, memory_mb=0.06, folder=tmp_path)  # two of 64 x 101 x 4 bytes
    first = [store.features(clip) for clip in clips]
    assert store.features(clips[1]).mel_MF is first[1].mel_MF
    assert store.features(clips[5]).mel_MF is not first[5].mel_MF
    assert len(list(tmp_path.rglob("*.npz"))) == 12
    again = FeatureStore(processor, memory_mb=0, folder=tmp_path).features(clips[5])
    assert torch.equal(again.mel_MF, first[5].mel_MF)
    assert again.num_frames == first[5].num_frames


def test_a_second_is_25_tokens_and_thirty_are_750() -> None:
    assert [num_audio_tokens(frames) for frames in (100, 1000, 3000)] == [25, 250, 750]
