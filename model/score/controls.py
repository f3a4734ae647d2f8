"""Controls: what a score is worth without hearing, without reading, and in another order.

| control | what the model is given | what it shows |
|---|---|---|
| `silence` | the question, and 30 s of zeros | what text alone gives (49.8% in arXiv 2509.21060) |
| `shuffled-audio` | the question, and another clip of the same task | the same, with real sound |
| `cyclic-shift-k` | the choices rotated by k = 1, 2, 3 | does the answer follow text or place |
| `first-choice`, `longest-choice` | no model | what a rule without ears or eyes gets (39%) |

The four cyclic shifts are the proper run (shift 0) and three more. A question with two or three
choices has no more orders than choices: its further shifts repeat earlier ones.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

from model.config import ControlName
from storage.records.question import Question

SILENCE_S = 30.0  # the longest clip that Qwen2-Audio hears; arXiv 2509.21060 uses the same
NUM_SHIFTS = 4  # 0 to 3; most questions have four choices
SHUFFLE_SEED = 42
SHIFT_PREFIX = "cyclic-shift-"
BASELINES = ("first-choice", "longest-choice")


def runs_of(controls: Iterable[ControlName]) -> list[str]:
    """The inference runs that controls ask for; the baselines need none.

    Returns:
        Names as they stand in run.json and, after a `+`, in the folder's name.
    """
    runs: list[str] = []
    for control in controls:
        if control == "cyclic-shifts":
            runs += [f"{SHIFT_PREFIX}{shift}" for shift in range(1, NUM_SHIFTS)]
        elif control not in BASELINES:
            runs.append(control)
    return runs


def asked_questions(questions: Sequence[Question], control: str | None) -> list[Question]:
    """The questions as a control asks them: choices rotated by a cyclic shift, else unchanged."""
    if control is None or not control.startswith(SHIFT_PREFIX):
        return list(questions)
    asked: list[Question] = []
    for question in questions:
        places = shift_of(control) % len(question.choices)
        rotated = question.choices[places:] + question.choices[:places]
        asked.append(replace(question, choices=rotated))
    return asked


def shift_of(control: str) -> int:
    """By how many places `cyclic-shift-2` rotates the choices."""
    return int(control.removeprefix(SHIFT_PREFIX))


def shuffled_audio(
    questions: Sequence[Question], seed: int = SHUFFLE_SEED
) -> dict[str, tuple[str, ...]]:
    """Give every question the clip of another one of its task.

    Returns:
        Clips by question id. Within a task the clips go round in a random order, so none is
        used twice; a question whose task has no other clip keeps its own.
    """
    by_task: dict[str, list[Question]] = {}
    for question in questions:
        by_task.setdefault(question.task, []).append(question)
    generator = random.Random(seed)  # noqa: S311  reproducible, not secret
    heard: dict[str, tuple[str, ...]] = {}
    for task in sorted(by_task):
        clips = sorted({question.clips for question in by_task[task]})
        generator.shuffle(clips)
        following = dict(zip(clips, clips[1:] + clips[:1], strict=True))
        heard |= {question.id: following[question.clips] for question in by_task[task]}
    return heard
