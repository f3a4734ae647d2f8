"""Questions as a job puts them: what is said, and what is heard with it; knows no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import soundfile  # pyright: ignore[reportMissingTypeStubs]  it has none

from model.infer.jobs import InferenceJob
from model.score.controls import SILENCE_S, asked_questions, shuffled_audio
from storage.audio import SAMPLE_RATE_HZ, find_clip
from storage.records.question import Question

STAND_IN_SILENCE_S = 10.0  # of a benchmark asked without its audio, to try things


@dataclass(frozen=True, slots=True)
class Item:
    """One question as it is put to the model."""

    id: str
    """Of the question."""
    text: str
    """What follows the clip, with the choices."""
    clip: Path | None
    """Its audio; None: silence."""
    silence_s: float = 0.0
    """Seconds of zeros where there is no clip."""
    system: str | None = None
    """The system's text; None: the model's own."""
    error: str | None = None
    """Why it cannot be asked, where that is known before."""
    choices: tuple[str, ...] = ()
    """As they are shown."""


def items_of(job: InferenceJob, questions: Sequence[Question]) -> list[Item]:
    """The questions as a job puts them: prompt, order of choices, and what is heard."""
    clip_of = {question.id: question.clips for question in questions}
    control = job.run.key.control
    if control == "shuffled-audio":
        clip_of = shuffled_audio(questions)
    items: list[Item] = []
    for question in asked_questions(questions, control):
        text = job.prompt.fill(question.question, question.choices)
        item = Item(question.id, text, None, system=job.prompt.system, choices=question.choices)
        if control == "silence":
            item = replace(item, silence_s=SILENCE_S)
        elif job.run.silence or job.audio is None:
            item = replace(item, silence_s=STAND_IN_SILENCE_S)
        else:
            (name,) = clip_of[question.id]
            clip = find_clip(job.audio, name)
            error = None if clip else f"{name} is missing in {job.audio}"
            item = replace(item, clip=clip, error=error)
        items.append(item)
    return items


def num_samples(item: Item) -> int:
    """About how many samples there are to hear, told from the clip's header, or its size."""
    if item.clip is None:
        return round(item.silence_s * SAMPLE_RATE_HZ)
    try:
        return round(float(soundfile.info(item.clip).duration) * SAMPLE_RATE_HZ)
    except (soundfile.LibsndfileError, OSError):  # ffmpeg may read it all the same
        return item.clip.stat().st_size // 2 if item.clip.exists() else 0
