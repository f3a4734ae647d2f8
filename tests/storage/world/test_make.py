"""The demo's world: its files' schemas, what is heard where, and that it is made once and alike."""

import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile

from storage.config import WorldConfig
from storage.world import make, videos
from storage.world.sounds import SOUNDS, Samples, make_sound

SMALL = WorldConfig(
    num_videos=20,
    clips_per_video=3,
    unusable_share=0.5,
    num_questions=80,
    num_validation_questions=6,
    num_benchmark_questions=42,
)
AVQA_KEYS = [
    "id",
    "video_name",
    "video_id",
    "question_text",
    "multi_choice",
    "answer",
    "question_relation",
    "question_type",
]
# The keys of a row of Sakshi113/MMAU@1f675a9:mmau-test-mini.json; their order varies there.
MMAU_KEYS = {
    "id",
    "audio_id",
    "question",
    "choices",
    "answer",
    "dataset",
    "task",
    "split",
    "category",
    "sub-category",
    "difficulty",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> make.World:
    return make.make_world(SMALL, tmp_path_factory.mktemp("demo") / "world")


@pytest.fixture(scope="module")
def fillers() -> dict[str, list[Samples]]:
    return videos.make_fillers(slot_s=2, seed=1)


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def videos_of(world: make.World) -> dict[str, dict]:
    return {name: entry["video"] for name, entry in read(world.folder / "media.json").items()}


def decode(path: Path, *, start_s: float, length_s: float) -> np.ndarray:
    """Decode everything and slice, which no seeking can put out of place."""
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    command = [ffmpeg, "-loglevel", "error", "-i", str(path.absolute())]
    command += ["-map", "0:a:0", "-ac", "1", "-ar", "16000", "-f", "f32le", "-"]
    samples = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, "<f4")
    return samples[round(start_s * 16000) : round((start_s + length_s) * 16000)]


def test_annotations_have_avqas_schema(world: make.World):
    rows = read(world.annotations)
    assert len(rows) == 80
    assert [row["id"] for row in rows] == list(range(80))
    for row in [*rows, *read(world.validation)]:
        assert list(row) == AVQA_KEYS
        assert re.fullmatch(r"[\w-]{11}_\d{6}", row["video_name"], re.ASCII)
        assert len(set(row["multi_choice"])) == 4
        assert row["answer"] in range(4)
        assert row["question_relation"] in {"View", "Sound", "Both"}
        assert "video" in row["question_text"]


def test_the_choices_of_a_clip_differ_from_question_to_question(world: make.World):
    asked = [(row["video_name"], tuple(row["multi_choice"])) for row in read(world.annotations)]
    assert len(asked) == 80
    assert len(set(asked)) >= 79


def test_ids_begin_with_a_dash_and_contain_an_underscore(world: make.World):
    ids = videos_of(world)
    assert any(video_id.startswith("-") for video_id in ids)
    assert any("_" in video_id for video_id in ids)


def test_the_answer_is_the_sound_at_the_annotated_second(world: make.World):
    videos = videos_of(world)
    for row in [*read(world.annotations), *read(world.validation)]:
        name = row["video_name"]
        clips = {clip["start_s"]: clip["sound"] for clip in videos[name[:-7]]["clips"]}
        assert row["multi_choice"][row["answer"]] == clips[int(name[-6:])]


def test_validation_is_about_other_videos(world: make.World):
    training = {row["video_name"][:-7] for row in read(world.annotations)}
    validation = {row["video_name"][:-7] for row in read(world.validation)}
    assert validation
    assert not training & validation


@pytest.mark.parametrize("suffix", [".m4a", ".webm", ".mp4"])
def test_a_media_file_holds_the_planned_sound_at_the_planned_second(
    tmp_path: Path, suffix: str, fillers: dict[str, list[Samples]]
):
    clips = (videos.AnnotatedClip(3, "siren"), videos.AnnotatedClip(9, "organ"))
    video = videos.Video("-a_bcdefghi", 21, clips, suffix, None)
    rng = np.random.default_rng(2)
    planned = videos.make_soundtrack(video, slot_s=2, fillers=fillers, rng=rng)
    path = tmp_path / f"media{suffix}"
    videos.encode(video, planned, path)
    for clip in clips:
        heard = decode(path, start_s=clip.start_s, length_s=2.0)
        start = clip.start_s * 16000
        agreement = np.corrcoef(heard, planned[start : start + 32000])[0, 1]
        assert agreement > 0.9


def test_sounds_asked_about_are_heard_nowhere_else_in_their_video():
    names = list(SOUNDS)
    marked = {
        name: [np.full(32000, -10.0 - index, np.float32)] * videos.TAKES_PER_SOUND
        for index, name in enumerate(names)
    }
    for seed in range(20):
        rng = np.random.default_rng(seed)
        video = videos.plan_video(seed, num_clips=4, slot_s=2, fault=None, rng=rng)
        track = videos.make_soundtrack(video, slot_s=2, fillers=marked, rng=rng)
        assert len(track) == video.length_s * 16000
        assert 20 <= video.length_s <= 60
        fillers = {names[round(-10 - value)] for value in np.unique(track[track <= -10])}
        assert fillers
        assert not fillers & {clip.sound for clip in video.clips}
        for clip in video.clips:
            assert (np.abs(track[clip.start_s * 16000 :][:32000]) <= 1).all()
            assert clip.start_s + 2 < video.length_s


def test_unusable_media_fail_in_the_way_that_they_are_named_for(world: make.World):
    by_fault = {video["fault"]: video for video in videos_of(world).values() if video["fault"]}
    assert set(by_fault) == set(videos.FAULTS)
    silent = world.media / (by_fault["silent"]["video_id"] + by_fault["silent"]["suffix"])
    assert np.abs(decode(silent, start_s=0, length_s=5)).max() < 1e-3
    assert all(c["start_s"] >= by_fault["short"]["length_s"] for c in by_fault["short"]["clips"])
    no_audio = world.media / (by_fault["no-audio"]["video_id"] + ".mp4")
    with pytest.raises(subprocess.CalledProcessError):
        decode(no_audio, start_s=0, length_s=1)
    assert not list(world.media.glob(f"{by_fault['404']['video_id']}*"))


def test_by_default_a_tenth_of_the_sources_is_unusable_in_ten_ways():
    videos = make.plan_training(WorldConfig())
    faults = Counter(video.fault for video in videos if video.fault is not None)
    assert len({(v.video_id, clip.start_s) for v in videos for clip in v.clips}) >= 200
    assert len(faults) == 10
    assert (faults.total() - faults["silent"]) / len(videos) >= 0.08
    assert WorldConfig().num_questions >= 300


def test_the_benchmark_has_mmaus_schema(world: make.World):
    questions = read(world.questions)
    assert len(questions) == 42
    assert len({question["id"] for question in questions}) == 42
    for question in questions:
        assert set(question) == MMAU_KEYS
        assert question["audio_id"] == f"./test-mini-audios/{question['id']}.wav"
        assert question["answer"] in question["choices"]
        assert len(set(question["choices"])) == len(question["choices"])
        facts = soundfile.info(world.audio / question["audio_id"])
        assert (facts.samplerate, facts.channels, facts.frames) == (16000, 1, 32000)
        assert facts.subtype == "PCM_16"
    assert {q["task"] for q in questions} == {"sound", "music", "speech"}
    assert len({q["sub-category"] for q in questions}) == 7
    assert {q["difficulty"] for q in questions} == {"easy", "medium", "hard"}
    assert Counter(len(q["choices"]) for q in questions) == {4: 36, 2: 3, 5: 3}


def test_always_choosing_the_same_place_stays_near_chance():
    rows = [make.benchmark_row(n, np.random.default_rng((3, n))) for n in range(900)]
    places = Counter(row["choices"].index(row["answer"]) for row in rows)
    assert max(places.values()) / 900 < 0.32


@pytest.mark.parametrize("name", list(SOUNDS))
def test_a_sound_is_audible_unclipped_and_new_each_time(name: str):
    first, second = (
        make_sound(name, num_samples=32000, noise=0.002, rng=np.random.default_rng(seed))
        for seed in (1, 2)
    )
    assert first.dtype == np.float32
    assert 0.1 < np.abs(first).max() < 1
    assert not np.allclose(first, second)


def test_a_world_that_stands_is_left_alone(world: make.World):
    before = {path: path.stat().st_mtime_ns for path in world.folder.rglob("*")}
    again = make.make_world(SMALL.model_copy(update={"port": 9999}), world.folder)
    assert again == world
    assert {path: path.stat().st_mtime_ns for path in world.folder.rglob("*")} == before


def test_the_same_seed_makes_the_same_bytes_and_leavings_of_a_kill_are_swept(
    world: make.World, tmp_path: Path
):
    leavings = tmp_path / "again.part" / "media"
    leavings.mkdir(parents=True)
    (leavings / "half.m4a").write_bytes(b"half")
    again = make.make_world(SMALL, tmp_path / "again")
    assert not (tmp_path / "again.part").exists()
    files = {path.relative_to(world.folder) for path in world.folder.rglob("*") if path.is_file()}
    assert files == {p.relative_to(again.folder) for p in again.folder.rglob("*") if p.is_file()}
    for path in files:
        assert (world.folder / path).read_bytes() == (again.folder / path).read_bytes(), path


def test_other_settings_make_another_world_in_its_place(world: make.World, tmp_path: Path):
    shutil.copytree(world.folder, tmp_path / "world")
    other = make.make_world(SMALL.model_copy(update={"seed": 8}), tmp_path / "world")
    assert other.questions.read_bytes() != world.questions.read_bytes()
    assert set(videos_of(other)).isdisjoint(videos_of(world))
