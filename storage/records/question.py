"""One multiple-choice question about audio, as every benchmark's rows become one."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from storage.records.model import DIGEST_CHARACTERS, NOT_IN_KEYS

VALIDATION = "validation"  # the benchmark made of held-out training examples
SHOWN_IDS = 10  # ids that a message lists before it only counts


@dataclass(frozen=True, slots=True)
class Question:
    """One multiple-choice question about one clip, or several."""

    id: str
    """Unique in its benchmark, e.g. `3fe64f3d-282c-4bc8-a753-68f8f6c35652`."""
    clips: tuple[str, ...]
    """Paths of its clips in the benchmark's audio folder, e.g. `./test-mini-audios/3fe64f3d.wav`;
    one or more, in the order in which they are heard."""
    question: str
    """The question's text, without the choices."""
    choices: tuple[str, ...]
    """Two or more texts, in the order in which they are shown; two may be alike."""
    answer: str | None
    """The right choice's text; None where the benchmark withholds it."""
    task: str
    """`sound`, `music` or `speech` in MMAU; the modality in MMAR; empty where there is none."""
    category: str = ""
    """E.g. `Reasoning`."""
    sub_category: str = ""
    """E.g. `Temporal Reasoning`."""
    difficulty: str = ""
    """`easy`, `medium` or `hard`; empty where the benchmark has none."""
    dataset: str = ""
    """Where the clip comes from, e.g. `AudioSet`."""
    split: str = ""
    """E.g. `test-mini`."""


def as_audio_question(question: str) -> str:
    """Ask about the audio what AVQA asks about the video; lower case only, as the original does."""
    return question.replace("video", "audio")


def benchmark_key(name: str, questions_sha256: str) -> str:
    """Key of a benchmark: two files of questions under one name are two benchmarks."""
    return f"{NOT_IN_KEYS.sub('-', name)}-{questions_sha256[:DIGEST_CHARACTERS]}"


def is_key_of(key: str, name: str) -> bool:
    """Whether a key is that of a benchmark of this name."""
    digest = rf"[0-9a-f]{{{DIGEST_CHARACTERS}}}"
    return re.fullmatch(f"{re.escape(benchmark_key(name, ''))}{digest}", key) is not None


def list_ids(ids: Sequence[str]) -> str:
    """The first ids, and how many more there are."""
    more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
    return ", ".join(ids[:SHOWN_IDS]) + more
