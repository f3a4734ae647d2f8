"""The demo's little world: annotations as AVQA's, the media they speak of, a benchmark as MMAU's.

```
world/
  world.json                                     the settings it was made from
  annotations/{train_qa.json, val_qa.json}       AVQA's schema
  media.json  media/<video id>.{m4a,webm,mp4}    what the media server serves, and its faults
  benchmark/{questions.json, audio/test-mini-audios/<id>.wav}     MMAU's schema
```
Everything follows from the seed. The benchmark's clips are made anew, from random streams that no
video uses, and never pass through a codec. The questions are few in form: what is to be learnt is
to hear the sound and find its name among the choices. Also the ground on which tests stand.
"""

import math
import shutil
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile  # pyright: ignore[reportMissingTypeStubs]  # it has none

from storage.config import WorldConfig, deciding
from storage.jsonl import Record, read_json, write_json
from storage.layout import Place
from storage.records.question import as_audio_question
from storage.world.media_server import ServedVideo, serve_media
from storage.world.sounds import NOISE_BY_DIFFICULTY, SAMPLE_RATE_HZ, SOUNDS, make_sound
from storage.world.videos import (
    FAULTS,
    Fault,
    Video,
    encode,
    make_fillers,
    make_soundtrack,
    plan_video,
)

RECIPE = "world.json"
FORMAT = 2  # to be raised when the same settings give another world
STREAMS = ("videos", "validation", "soundtracks", "questions", "benchmark")

# Question, AVQA's question_relation and question_type. Training asks about the "audio" instead.
VIDEO_QUESTIONS = (
    ("Which sound is heard in the video?", "Sound", "Which"),
    ("What is the main sound in the video?", "Both", "Come From"),
    ("What is happening in the video?", "View", "Happening"),
)

# MMAU's category and sub-category for each sound, as the published file pairs them.
CATEGORIES = {
    "rain": ("Reasoning", "Ambient Sound Interpretation"),
    "clock": ("Information Extraction", "Sound-Based Event Recognition"),
    "siren": ("Reasoning", "Acoustic Source Inference"),
    "bells": ("Information Extraction", "Instrumentation"),
    "organ": ("Information Extraction", "Harmony and Chord Progressions"),
    "man": ("Reasoning", "Multi Speaker Role Mapping"),
    "baby": ("Reasoning", "Conversational Fact Retrieval"),
}


@dataclass(frozen=True, slots=True)
class World:
    """Where the files of a world are."""

    folder: Path

    annotations = Place("folder", "annotations/train_qa.json")
    """In AVQA's schema."""
    validation = Place("folder", "annotations/val_qa.json")
    """In AVQA's schema, about other videos."""
    questions = Place("folder", "benchmark/questions.json")
    """The benchmark's, in MMAU's schema."""
    audio = Place("folder", "benchmark/audio")
    """Folder that the benchmark's `audio_id` is relative to."""
    media = Place("folder", "media")
    """Folder of the media files that the server serves."""


def make_world(config: WorldConfig, folder: Path) -> World:
    """Make a world in one piece, by rename, unless one of the same settings stands there."""
    world = World(folder)
    if is_made(config, folder):
        return world
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    _fill(World(part), config)
    write_json(part / RECIPE, _recipe(config))
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return world


def is_made(config: WorldConfig, folder: Path) -> bool:
    """Whether the world that stands there was made from these settings."""
    return (folder / RECIPE).is_file() and read_json(folder / RECIPE) == _recipe(config)


def _recipe(config: WorldConfig) -> Record:
    return {"format": FORMAT, **deciding(config)}


def serve(world: World, port: int) -> AbstractContextManager[str]:
    """Serve a world's media as `serve_media` does; a video is at `<address>/watch/<video id>`."""
    served = {
        video_id: ServedVideo(
            world.media / entry["file"] if entry["file"] else None, entry["fault"]
        )
        for video_id, entry in read_json(world.folder / "media.json").items()
    }
    return serve_media(served, port=port)


def _fill(world: World, config: WorldConfig) -> None:
    training = plan_training(config)
    num_held_out = math.ceil(config.num_validation_questions / config.clips_per_video)
    held_out = _plan(config, "validation", num_held_out, {})
    _write_media(world, [*training, *held_out], config)
    rng = _rng(config, "questions")
    write_json(world.annotations, _annotation_rows(training, config.num_questions, rng))
    write_json(world.validation, _annotation_rows(held_out, config.num_validation_questions, rng))
    _write_benchmark(world, config)


def plan_training(config: WorldConfig) -> list[Video]:
    """The training videos; the unusable ones are spread over them, in every way in turn."""
    num_faulty = math.ceil(config.unusable_share * config.num_videos)
    faulty = [int((i + 0.5) * config.num_videos / num_faulty) for i in range(num_faulty)]
    faults: dict[int, Fault] = {index: FAULTS[i % len(FAULTS)] for i, index in enumerate(faulty)}
    return _plan(config, "videos", config.num_videos, faults)


def _plan(
    config: WorldConfig, stream: str, num_videos: int, faults: Mapping[int, Fault]
) -> list[Video]:
    return [
        plan_video(
            index,
            num_clips=config.clips_per_video,
            slot_s=config.slot_s,
            fault=faults.get(index),
            rng=_rng(config, stream, index),
        )
        for index in range(num_videos)
    ]


def _write_media(world: World, videos: Sequence[Video], config: WorldConfig) -> None:
    world.media.mkdir(parents=True)
    fillers = make_fillers(slot_s=config.slot_s, seed=config.seed)

    def write(index: int) -> None:
        video = videos[index]
        if video.file_name is None:
            return
        rng = _rng(config, "soundtracks", index)
        soundtrack = make_soundtrack(video, slot_s=config.slot_s, fillers=fillers, rng=rng)
        encode(video, soundtrack, world.media / video.file_name)

    with ThreadPoolExecutor(max_workers=2) as pool:  # the work is in ffmpeg
        list(pool.map(write, range(len(videos))))
    in_the_file = ("no-audio", "short", "silent")
    served = {
        video.video_id: {
            "file": video.file_name,
            "fault": None if video.fault in in_the_file else video.fault,
            "video": asdict(video),
        }
        for video in videos
    }
    write_json(world.folder / "media.json", served)


def _annotation_rows(
    videos: Sequence[Video], num_questions: int, rng: np.random.Generator
) -> list[Record]:
    """Rows in AVQA's schema; clips are asked about in turn, with other choices each time."""
    clips = [(index, video, clip) for index, video in enumerate(videos) for clip in video.clips]
    rows: list[Record] = []
    for number in range(num_questions):
        video_index, video, clip = clips[number % len(clips)]
        text, relation, kind = VIDEO_QUESTIONS[int(rng.integers(len(VIDEO_QUESTIONS)))]
        choices = _choices(clip.sound, num_choices=4, rng=rng)
        rows.append(
            {
                "id": number,
                "video_name": f"{video.video_id}_{clip.start_s:06d}",
                "video_id": video_index,
                "question_text": text,
                "multi_choice": choices,
                "answer": choices.index(clip.sound),
                "question_relation": relation,
                "question_type": kind,
            }
        )
    return rows


def _write_benchmark(world: World, config: WorldConfig) -> None:
    """Questions in MMAU's schema with their clips; tasks, sounds and difficulties in turn."""
    folder = world.audio / "test-mini-audios"
    folder.mkdir(parents=True)
    num_samples = round(config.clip_length_s * SAMPLE_RATE_HZ)
    rows: list[Record] = []
    for index in range(config.num_benchmark_questions):
        rng = _rng(config, "benchmark", index)
        row = benchmark_row(index, rng)
        noise = NOISE_BY_DIFFICULTY[row["difficulty"]]
        wave = make_sound(row["answer"], num_samples=num_samples, noise=noise, rng=rng)
        soundfile.write(folder / f"{row['id']}.wav", wave, SAMPLE_RATE_HZ, subtype="PCM_16")
        rows.append(row)
    write_json(world.questions, rows)


def benchmark_row(index: int, rng: np.random.Generator) -> Record:
    """A row in MMAU's schema; tasks and sounds come in turn, the rest is drawn."""
    task = ("sound", "music", "speech")[index % 3]
    sounds = [sound for sound, (its_task, _) in SOUNDS.items() if its_task == task]
    sound = sounds[index // 3 % len(sounds)]
    num_choices = {4: 2, 11: 5}.get(index % 14, 4)  # a few of two and of five, as in MMAU
    text, _, _ = VIDEO_QUESTIONS[int(rng.integers(len(VIDEO_QUESTIONS)))]
    question_id = str(uuid.UUID(bytes=rng.bytes(16), version=4))
    category, sub_category = CATEGORIES[sound]
    return {
        "id": question_id,
        "audio_id": f"./test-mini-audios/{question_id}.wav",
        "question": as_audio_question(text),
        "choices": _choices(sound, num_choices=num_choices, rng=rng),
        "answer": sound,
        "dataset": "demo",
        "task": task,
        "split": "test-mini",
        "category": category,
        "sub-category": sub_category,
        "difficulty": str(rng.choice(list(NOISE_BY_DIFFICULTY))),
    }


def _choices(answer: str, *, num_choices: int, rng: np.random.Generator) -> list[str]:
    others = rng.permutation([sound for sound in SOUNDS if sound != answer])
    return [str(choice) for choice in rng.permutation([answer, *others[: num_choices - 1]])]


def _rng(config: WorldConfig, stream: str, index: int = 0) -> np.random.Generator:
    """A generator of its own for each thing, so that none depends on the order of work."""
    return np.random.default_rng((config.seed, STREAMS.index(stream), index))
