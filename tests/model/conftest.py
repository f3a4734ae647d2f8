"""A small model, clips and training lines for the tests of training and inference."""

import json
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.state import AcceleratorState

from model.config import TrainConfig
from model.network.tiny import build_tiny
from model.training_record import TrainingRun, run_of, training_record
from storage.records.model import ModelRef

SOUNDS = ("tone", "noise", "clicks", "buzz")
QUESTION = "What is the source of the sound in the video?"


def write_wav(path: Path, samples: np.ndarray, rate_hz: int = 16_000) -> Path:
    """Mono PCM16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def write_training_lines(folder: Path, num_examples: int, *, seconds: float = 1.0) -> Path:
    """train.jsonl with one clip an example, in R1-AQA's keys."""
    rng = np.random.default_rng(0)
    lines = []
    for n in range(num_examples):
        clip = folder / "clips" / f"clip{n:08d}_{n}.wav"
        write_wav(clip, rng.standard_normal(int(16_000 * seconds)) * 0.1)
        row = {
            "id": n,
            "video_name": f"clip{n:08d}_{n:06d}",
            "video_id": n,
            "question_text": QUESTION,
            "multi_choice": list(SOUNDS),
            "answer": n % len(SOUNDS),
            "question_relation": "Sound",
            "question_type": "Come From",
            "dataset_name": "AVQA",
            "audio_path": str(clip),
        }
        lines.append(json.dumps(row))
    path = folder / "train.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def training_run(model: Path, lines: Path, output: Path, settings: dict[str, Any]) -> TrainingRun:
    """A training of a model folder on some lines, as run.json would have it."""
    config = TrainConfig.model_validate(settings)
    record = training_record(
        config,
        start=ModelRef(key="tiny", path=str(model), digest=""),
        examples=lines,
        num_examples=len(lines.read_text(encoding="utf-8").splitlines()),
    )
    return run_of(record, config, output)


@pytest.fixture(autouse=True)
def own_accelerate() -> Iterator[None]:
    """A process trains once; a test's successor may have another precision."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny model that hears 3 s."""
    return build_tiny(
        tmp_path_factory.mktemp("tiny") / "model",
        [QUESTION, *SOUNDS],
        clip_length_s=3.0,
        seed=0,
    )


@pytest.fixture(scope="session")
def training_lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.jsonl of 12 one-second clips."""
    return write_training_lines(tmp_path_factory.mktemp("lines"), 12)
