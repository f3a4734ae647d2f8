"""What the first screen claims of a benchmark, and what each claim rests on; templates say it.

A part stands only where its evidence does: a gain needs the start model's answers, a rival another
method, a claim p < .05 after Holm over the pairs of leading rows, "gains most" a task that beats
the next beyond the noise of their questions. Beside it: trainings that differ from one another in
one deciding setting.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from reports.numbers.achievements import Achievement, achievements, other_models
from reports.numbers.comparisons import Matrix, Versus
from reports.numbers.leaderboard import method_name
from reports.numbers.statistics import QUANTILE, group_indices, paired
from reports.report import Report
from reports.sheets import EvaluationSheet, TrainingSheet, Unfinished, flat

# A training's own name decides nothing of what it learns; a prompt's name stands for all of it.
NAMES = ("name", "prompt")


class TaskGain(NamedTuple):
    """What leads minus its start on the questions of one task."""

    task: str
    difference: float
    variance: float
    """Of the difference."""


class Story(NamedTuple):
    """The first screen of one benchmark."""

    standings: Sequence[Achievement]
    """Trainings, or other models where none was trained here, by accuracy; the first leads."""
    names: Sequence[str]
    """Of the standings, e.g. `SFT, LoRA`."""
    gain: Versus | None
    """Of what leads over its start."""
    others: Sequence[Versus]
    """What leads over each other standing."""
    rivals: Sequence[Versus]
    """Of these, what was trained by another method."""
    tasks: Sequence[TaskGain]
    """The largest first; empty without a start model."""
    num_done: int
    """Checkpoints evaluated on this benchmark."""
    num_planned: int
    unfinished: Sequence[Unfinished]

    @property
    def lead(self) -> Achievement:
        """The best of the standings."""
        return self.standings[0]

    @property
    def gains_most(self) -> bool:
        """Whether the first task gains more than the next beyond the noise of their questions."""
        (_, first, noise), (_, second, more), *_ = self.tasks
        return first - second > QUANTILE * math.sqrt(noise + more)

    @property
    def named(self) -> set[str]:
        """Trainings that the sentence names."""
        lead = {self.lead.training.name} if self.lead.training else set[str]()
        return lead | {rival.key for rival in self.rivals[:1]}


def stories(report: Report, matrices: Mapping[str, Matrix]) -> list[Story]:
    """One a benchmark on which something was judged."""
    trained, others = achievements(report), other_models(report)
    found: list[Story] = []
    for judged in report.scored:
        key = judged.benchmark.key
        own, rest = (
            [line for line in lines if line.benchmark.key == key] for lines in (trained, others)
        )
        standings = sorted(own or rest, key=lambda line: -line.tally.accuracy)
        if standings:
            found.append(_story(report, standings, matrices.get(key)))
    return found


def names_of(trainings: Iterable[TrainingSheet]) -> dict[str, str]:
    """What a page calls each training: its method, with the prompt where that tells them apart."""
    evaluated = [training for training in trainings if training.evaluated]
    methods = {own.name: method_name(own.method, own.variant) for own in evaluated}
    prompts = {own.name: f"{methods[own.name]}, prompt {own.prompt}" for own in evaluated}
    alone = {name: name for name in methods}
    return next(
        names for names in (methods, prompts, alone) if len({*names.values()}) == len(names)
    )


def _story(report: Report, standings: Sequence[Achievement], matrix: Matrix | None) -> Story:
    lead, names = standings[0], names_of(report.trainings)
    benchmark, scorer = lead.benchmark, lead.scorer

    def versus(name: str, key: str, other: EvaluationSheet) -> Versus:
        test = paired(other.marks[scorer], lead.marks)
        if matrix is None:
            return Versus(test, test.p_value, name, key)
        keys = [row.key for row in matrix.rows]
        if lead.evaluation.key in keys and other.key in keys:
            row, column = sorted((keys.index(lead.evaluation.key), keys.index(other.key)))
            return Versus(test, matrix.cells[row, column].p_value, name, key)
        # Of a pair that the matrix leaves out, p times the number of its pairs.
        return Versus(test, min(1.0, test.p_value * (len(matrix.cells) + 1)), name, key)

    keys = [line.training.name if line.training else "" for line in standings]
    shown = [
        names.get(key) or report.label(line.evaluation.key)
        for key, line in zip(keys, standings, strict=True)
    ]
    others = [
        versus(name, key, line.evaluation)
        for name, key, line in zip(shown[1:], keys[1:], standings[1:], strict=True)
    ]
    method = lead.training and lead.training.method
    trainings = [training for training in report.trainings if training.evaluated]
    steps = [len(lead.judged.steps(training)) for training in trainings]
    return Story(
        standings=standings,
        names=shown,
        gain=versus(lead.start.model, "", lead.start) if lead.start else None,
        others=others,
        rivals=[
            other
            for other in others
            if not other.key or report.training(other.key).method != method
        ],
        tasks=_task_gains(lead),
        num_done=sum(steps),
        num_planned=sum(
            len(training.planned) or done for training, done in zip(trainings, steps, strict=True)
        ),
        unfinished=[
            part
            for part in report.unfinished
            if part.run.key.benchmark == benchmark.key and not part.run.key.control
        ],
    )


def _task_gains(lead: Achievement) -> list[TaskGain]:
    if lead.start is None:
        return []
    pairs = zip(lead.start.marks[lead.scorer], lead.marks, strict=True)
    changes = [(after == "1") - (before == "1") for before, after in pairs]
    gains: list[TaskGain] = []
    for name, group in group_indices(lead.benchmark.questions, "task").items():
        mean = sum(changes[index] for index in group) / len(group)
        variance = sum((changes[index] - mean) ** 2 for index in group) / len(group) ** 2
        gains.append(TaskGain(name, mean, variance))
    return sorted(gains, key=lambda gain: (-gain.difference, gain.task))


class Variants(NamedTuple):
    """Trainings that are alike in all but one setting."""

    setting: str
    """E.g. `grpo.beta`."""
    members: Mapping[str, str]
    """Value of the setting by training."""


def variants(trainings: Sequence[TrainingSheet]) -> list[Variants]:
    """One group a setting and common rest; a training may stand in several.

    They are recognised by what each recorded before it started, never by a name. Means and
    intervals over seeds are not claimed here.
    """
    settings = {training.name: _deciding(training) for training in trainings if training.settings}
    found: list[Variants] = []
    for key in sorted({key for own in settings.values() for key in own}):
        groups: dict[frozenset[tuple[str, str]], dict[str, str]] = {}
        for name, own in settings.items():
            rest = frozenset(own.items() - {(key, own.get(key, ""))})
            groups.setdefault(rest, {})[name] = own.get(key, "none")
        found += [Variants(key, group) for group in groups.values() if len({*group.values()}) > 1]
    return found


def _deciding(training: TrainingSheet) -> dict[str, str]:
    start = training.start.digest if training.start else ""
    own = {"seed": str(training.seed), "prompt": training.prompt, "start model": start[:12]}
    settings = {key: value for key, value in training.settings.items() if key not in NAMES}
    return dict(flat(settings)) | own
