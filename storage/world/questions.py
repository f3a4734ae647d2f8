"""The demo's questions: AVQA's rows about the videos, MMAU's rows about clips of their own.

The world's questions are few in form, because they are not what is to be learnt: a small model
has to hear the sound and find its name among the choices, which differ with every question.
"""

import uuid
from collections.abc import Sequence

import numpy as np

from storage.jsonl import Record
from storage.records.question import as_audio_question
from storage.world.sounds import NOISE_BY_DIFFICULTY, SOUNDS
from storage.world.videos import Video

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


def annotation_rows(
    videos: Sequence[Video], *, num_questions: int, rng: np.random.Generator
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
