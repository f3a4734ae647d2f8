"""A sample of a benchmark: stable, stratified by task, with a name of its own wherever it is shown.

In each task the questions are ranked by a hash of their ids, and the lowest ranks are taken from
all tasks alike; so a larger sample holds the smaller one.
"""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from storage.benchmarks.parse import as_file, keep_questions, read_questions
from storage.records.question import Question


def sample_name(name: str, limit: int | None) -> str:
    """Name of a benchmark of which at most so many questions are asked."""
    return name if limit is None else f"{name}-sample-{limit}"


def write_sample(name: str, whole: Path, limit: int) -> Path:
    """Write the sample's questions beside the whole benchmark's, whose clips it shares.

    Args:
        name: Of the benchmark.
        whole: Its questions.json.
        limit: Questions to take, at most.

    Returns:
        The sample's questions.json.
    """
    content = as_file(take_sample(read_questions(whole), limit))
    path = keep_questions(sample_name(name, limit), content, whole.parent.parent)
    audio = whole.parent / "audio"
    audio.mkdir(exist_ok=True)
    with suppress(FileExistsError):
        (path.parent / "audio").symlink_to(os.path.relpath(audio, path.parent))
    return path


def take_sample(questions: Sequence[Question], limit: int) -> list[Question]:
    """At most so many questions, of each task its share, in the file's order."""
    ranks: dict[str, tuple[float, str]] = {}
    for task in {question.task for question in questions}:
        names = [question.id for question in questions if question.task == task]
        digests = {hashlib.sha256(name.encode()).hexdigest(): name for name in names}
        for place, digest in enumerate(sorted(digests)):
            ranks[digests[digest]] = ((place + 0.5) / len(digests), digest)
    chosen = set(sorted(ranks, key=lambda name: ranks[name])[:limit])
    return [question for question in questions if question.id in chosen]
