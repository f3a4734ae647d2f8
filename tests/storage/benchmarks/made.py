"""Small files in the exact schema of each shipped benchmark, read by its shipped description."""

from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import yaml

from storage.benchmarks.published import FOLDER
from storage.config import BenchmarkConfig
from storage.jsonl import write_json, write_jsonl

CHOICES = ["rain", "wind", "bells", "steps"]


def clip(path: Path, number: int) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = 0.2 * np.sin(np.arange(16_000) * (0.05 + 0.01 * number))
    soundfile.write(path, tone, 16_000)
    return path.read_bytes()


def described(name: str, folder: Path, *, questions: Path, audio: Path | None) -> BenchmarkConfig:
    """A benchmark as it is shipped, but for the digest and the number of its real file."""
    tree = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    for key in ("sha256", "num_questions", "errata"):
        tree.pop(key, None)
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(tree))
    place = None if audio is None else str(audio)
    return BenchmarkConfig(name=name, file=str(file), questions=str(questions), audio=place)


def mmar(folder: Path, version: str, *, suffix: str, num_questions: int = 7) -> BenchmarkConfig:
    layers = ["Signal Layer", "Perception Layer", "Semantic Layer", "Cultural Layer"]
    modalities = ["sound", "music", "speech", "mix-sound-music", "mix-sound-speech"]
    modalities += ["mix-music-speech", "mix-sound-music-speech"]
    rows = [
        {
            "id": f"BV1_{number}_00-00-00_00-00-10",
            "audio_path": f"./audio/BV1_{number}.wav",
            "question": f"What is heard in {number}?",
            "choices": CHOICES,
            "answer": CHOICES[number % 4],
            "modality": modalities[number % 7],
            "category": layers[number % 4],
            "sub-category": "Counting and Statistics",
            "language": None,
            "source": "bilibili",
            "url": "https://example.org",
            "timestamp": "00:00,00:10",
        }
        for number in range(num_questions)
    ]
    if suffix == ".jsonl":
        more = {"thinking": "Rain is heard.", "cue": ["rain"], "rubric": []}
        rows = [{**row, **more} for row in reversed(rows)]
        rows[0]["answer"] = CHOICES[(num_questions - 1 + 1) % 4]  # one gold was corrected
    for number in range(num_questions):
        clip(folder / "mmar" / "audio" / f"BV1_{number}.wav", number)
    path = folder / f"MMAR-meta{suffix}"
    (write_jsonl if suffix == ".jsonl" else write_json)(path, rows)
    return described(version, folder, questions=path, audio=folder / "mmar")


def mmsu(folder: Path, num_questions: int = 6) -> BenchmarkConfig:
    """A folder of parquet with the audio inside, as the hub converts the data set."""
    rows = [
        {
            "id": f"x_{number}",
            "audio": {"bytes": clip(folder / "x.wav", number), "path": "same-name.wav"},
            "question": f"Which word carries the stress in {number}?",
            "choice_a": "never",
            "choice_b": "went",
            "choice_c": "there" if number % 2 else None,
            "choice_d": "again" if number % 2 else None,
            "answer_gt": "went",
            "task_name": "stress_x",
            "category": "Perception" if number % 3 else "Reasoning",
            "sub-category": "Linguistics",
            "sub-sub-category": "Phonology",
            "linguistics_sub_discipline": "prosody",
        }
        for number in range(num_questions)
    ]
    texts = {key: datasets.Value("string") for key in rows[0] if key != "audio"}
    features = datasets.Features({**texts, "audio": datasets.Audio(decode=False)})
    place = folder / "MMSU" / "default" / "train"
    place.mkdir(parents=True)
    table = pa.Table.from_pylist(rows, schema=features.arrow_schema)
    pq.write_table(table, place / "0000.parquet")
    return described("mmsu", folder, questions=folder / "MMSU", audio=None)


def adqa(folder: Path, num_questions: int = 5) -> BenchmarkConfig:
    rows = [
        {
            "id": f"dev_{number:04d}",
            "audio_path": f"dev_audios/dev_{number:04d}.wav",
            "question_text": f"What follows the bell in {number}?",
            "multi_choice": CHOICES,
            "answer": CHOICES[(number + 1) % 4],
        }
        for number in range(num_questions)
    ]
    for row in rows:
        clip(folder / "adqa" / str(row["audio_path"]), 3)
    write_jsonl(folder / "dev.jsonl", rows)
    return described("adqa-dev", folder, questions=folder / "dev.jsonl", audio=folder / "adqa")


def air_bench(folder: Path) -> BenchmarkConfig:
    """A benchmark of another shape, told in one YAML of one's own."""
    rows = [
        {
            "uniq_id": number,
            "path": f"a{number}.wav",
            "question": f"What is heard in {number}?",
            "choice_a": "dog",
            "choice_b": "bell",
            "answer_gt": "bell",
            "task_name": "Sound_AQA",
            "dataset_name": "avqa",
        }
        for number in range(3)
    ]
    for row in rows:
        clip(folder / "air" / str(row["path"]), 1)
    write_json(folder / "Foundation_meta.json", rows)
    file = folder / "mine.yaml"
    file.write_text(
        """
title: AIR-Bench foundation, made
fields:
  id: uniq_id
  audio_id: path
  choices: [choice_a, choice_b, choice_c, choice_d]
  answer: answer_gt
  task: task_name
  category: {constant: Perception}
  sub_category: null
  difficulty: null
  dataset: dataset_name
holds: [AVQA, ClothoAQA]
note: Foundation holds AVQA.
"""
    )
    questions = str(folder / "Foundation_meta.json")
    return BenchmarkConfig(
        name="mine", file=str(file), questions=questions, audio=str(folder / "air")
    )
