"""The demo's little world: annotations as AVQA's, the media they speak of, a benchmark as MMAU's.

```
world/
  world.json                                     the settings it was made from
  annotations/{train_qa.json, val_qa.json}       AVQA's schema
  media.json  media/<video id>.{m4a,webm,mp4}    what the media server serves, and its faults
  benchmark/{questions.json, audio/test-mini-audios/<id>.wav}     MMAU's schema
```
Everything follows from the seed. The benchmark's clips are made anew, from random streams that no
video uses, and never pass through a codec. Also the ground on which tests stand.
"""

import math
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile  # pyright: ignore[reportMissingTypeStubs]  # it has none

from storage.config import WorldConfig, deciding
from storage.jsonl import Record, read_json, write_json
from storage.world.media_server import ServedVideo, serve_media
from storage.world.questions import annotation_rows, benchmark_row
from storage.world.sounds import NOISE_BY_DIFFICULTY, SAMPLE_RATE_HZ, make_sound
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


@dataclass(frozen=True, slots=True)
class World:
    """Where the files of a world are."""

    folder: Path
    """The folder that holds it all."""

    @property
    def annotations(self) -> Path:
        """train_qa.json in AVQA's schema."""
        return self.folder / "annotations" / "train_qa.json"

    @property
    def validation(self) -> Path:
        """val_qa.json in AVQA's schema, about other videos."""
        return self.folder / "annotations" / "val_qa.json"

    @property
    def questions(self) -> Path:
        """The benchmark's questions in MMAU's schema."""
        return self.folder / "benchmark" / "questions.json"

    @property
    def audio(self) -> Path:
        """Folder that the benchmark's `audio_id` is relative to."""
        return self.folder / "benchmark" / "audio"

    @property
    def media(self) -> Path:
        """Folder of the media files that the server serves."""
        return self.folder / "media"


def make_world(config: WorldConfig, folder: Path) -> World:
    """Make a world, or take the one that stands there if it was made from the same settings.

    The folder appears in one piece, by rename.

    Raises:
        PipelineError: If ffmpeg fails.
    """
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
    """Serve a world's media on loopback; a video is at `<address>/watch/<video id>`.

    Returns:
        A context manager that gives the address, e.g. `http://127.0.0.1:8631`.

    Raises:
        PipelineError: If the port is in use (on entering).
    """
    served = {
        video_id: ServedVideo(
            path=world.media / entry["file"] if entry["file"] else None, fault=entry["fault"]
        )
        for video_id, entry in read_json(world.folder / "media.json").items()
    }
    return serve_media(served, port=port)


def _fill(world: World, config: WorldConfig) -> None:
    slot_s = math.ceil(config.clip_length_s)
    training = _plan_videos(config, slot_s=slot_s)
    num_held_out = math.ceil(config.num_validation_questions / config.clips_per_video)
    held_out = [
        plan_video(
            index,
            num_clips=config.clips_per_video,
            slot_s=slot_s,
            fault=None,
            rng=_rng(config, "validation", index),
        )
        for index in range(num_held_out)
    ]
    _write_media(world, [*training, *held_out], config=config, slot_s=slot_s)
    rng = _rng(config, "questions")
    write_json(
        world.annotations, annotation_rows(training, num_questions=config.num_questions, rng=rng)
    )
    write_json(
        world.validation,
        annotation_rows(held_out, num_questions=config.num_validation_questions, rng=rng),
    )
    _write_benchmark(world, config)


def _plan_videos(config: WorldConfig, *, slot_s: int) -> list[Video]:
    """The training videos; the unusable ones are spread over them, in every way in turn."""
    num_faulty = math.ceil(config.unusable_share * config.num_videos)
    faulty = [int((i + 0.5) * config.num_videos / num_faulty) for i in range(num_faulty)]
    faults: dict[int, Fault] = {index: FAULTS[i % len(FAULTS)] for i, index in enumerate(faulty)}
    return [
        plan_video(
            index,
            num_clips=config.clips_per_video,
            slot_s=slot_s,
            fault=faults.get(index),
            rng=_rng(config, "videos", index),
        )
        for index in range(config.num_videos)
    ]


def _write_media(
    world: World, videos: Sequence[Video], *, config: WorldConfig, slot_s: int
) -> None:
    world.media.mkdir(parents=True)
    fillers = make_fillers(slot_s=slot_s, seed=config.seed)

    def write(index: int) -> None:
        video = videos[index]
        if video.file_name is None:
            return
        rng = _rng(config, "soundtracks", index)
        soundtrack = make_soundtrack(video, slot_s=slot_s, fillers=fillers, rng=rng)
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


STREAMS = ("videos", "validation", "soundtracks", "questions", "benchmark")


def _rng(config: WorldConfig, stream: str, index: int = 0) -> np.random.Generator:
    """A generator of its own for each thing, so that none depends on the order of work."""
    return np.random.default_rng((config.seed, STREAMS.index(stream), index))
