"""What the controls say: what the audio is worth, whether answers follow the text or the place.

Read from the verdicts of a model's control runs beside those of its proper run, and counted with
integers; shares are taken where they are shown.

- Audio contribution: right with the clip minus right with the control's, by task, of the same
  questions. A model that keeps its score under silence has not listened.
- Questions that need the audio: those that the start model gets wrong under silence; a gain on them
  is a gain in hearing, a gain on the others may be one in format or guessing.
- Consistency: questions whose chosen text is the same in every order of the choices: four orders,
  the proper one included, or as many as there are choices where these are fewer. Always answering
  "A" is consistent on no question. Right in all: consistent, and right.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from model.config import ScorerName
from model.score.controls import SHIFT_PREFIX, asked_questions, shift_of
from model.score.scorers import by_group, tally
from storage.records.evaluation import (
    Contribution,
    ControlReport,
    Heard,
    OrderConsistency,
    RunKey,
    Tally,
    Verdict,
    list_runs,
    read_verdicts,
)
from storage.records.question import Question

Verdicts = Sequence[Verdict]


def write_control_report(
    evaluation: Path,
    proper: RunKey,
    questions: Sequence[Question],
    *,
    scorers: Sequence[ScorerName],
    start: str | None = None,
) -> ControlReport | None:
    """Write `controls.json` beside a proper run; None where it has not run, or no control of it.

    Args:
        evaluation: The experiment's folder of evaluations.
        proper: The run without a control.
        questions: The benchmark's.
        scorers: To count with.
        start: Key of the model that the training started from, whose silent run tells which
            questions need the audio; None: the model's own.
    """
    controls = _verdicts(evaluation, proper)
    heard = controls.pop("", None)
    if heard is None or not controls:
        return None
    shifted = {name: run for name, run in controls.items() if name.startswith(SHIFT_PREFIX)}
    other_audio = {name: run for name, run in controls.items() if name not in shifted}
    deaf_key = proper.model_copy(update={"model": start or proper.model})
    deaf = _verdicts(evaluation, deaf_key).get("silence")
    report = ControlReport(
        key=proper,
        contribution={
            scorer: {
                name: contribution(questions, heard, run, scorer)
                for name, run in other_audio.items()
            }
            for scorer in scorers
        },
        needs_audio={
            scorer: right_where_deaf_is_wrong(heard, deaf, scorer)
            for scorer in scorers
            if deaf is not None
        },
        order=order_consistency(questions, heard, shifted) if shifted else None,
    )
    report.write(evaluation / proper.folder / "controls.json")
    return report


def contribution(
    questions: Sequence[Question], heard: Verdicts, control: Verdicts, scorer: ScorerName
) -> Contribution:
    """Right with the clip and right under a control, overall and by group."""

    def count(pairs: Sequence[tuple[Verdict, Verdict]]) -> Heard:
        return Heard(
            num_heard=sum(with_clip.of(scorer) is True for with_clip, _ in pairs),
            num_control=sum(under_control.of(scorer) is True for _, under_control in pairs),
            num_questions=len(pairs),
        )

    pairs = list(zip(heard, control, strict=True))
    return Contribution(overall=count(pairs), groups=by_group(questions, pairs, count))


def right_where_deaf_is_wrong(heard: Verdicts, deaf: Verdicts, scorer: ScorerName) -> Tally:
    """Right answers to the questions that a model gets wrong under silence."""
    pairs = zip(heard, deaf, strict=True)
    needing = [with_clip for with_clip, without in pairs if without.of(scorer) is not True]
    return tally([with_clip.of(scorer) is True for with_clip in needing])


def order_consistency(
    questions: Sequence[Question], proper: Verdicts, shifted: Mapping[str, Verdicts]
) -> OrderConsistency:
    """How often the chosen text is the same, and right, in every order of the choices.

    Of shifts that give a question the same order the first counts, so a repeated decoding cannot
    disagree with itself.
    """
    chosen = {0: _chosen(questions, proper)}
    for control, verdicts in shifted.items():
        chosen[shift_of(control)] = _chosen(asked_questions(questions, control), verdicts)
    num_consistent = num_right_in_all = 0
    for index, question in enumerate(questions):
        by_order: dict[int, str | None] = {}
        for shift in sorted(chosen):
            by_order.setdefault(shift % len(question.choices), chosen[shift][index])
        texts = set(by_order.values())
        if len(texts) == 1 and None not in texts:
            num_consistent += 1
            num_right_in_all += question.answer in texts
    return OrderConsistency(
        num_consistent=num_consistent,
        num_right_in_all=num_right_in_all,
        num_questions=len(questions),
        num_orders=len(chosen),
    )


def _verdicts(evaluation: Path, proper: RunKey) -> dict[str, Verdicts]:
    """The verdicts of a model's controls by their name, of its proper run under an empty one."""
    folder = (evaluation / proper.folder).parent
    return {
        stored.run.key.control or "": read_verdicts(stored.folder / "verdicts.jsonl")
        for stored in list_runs(evaluation, within=folder)
        if stored.run.key.proper == proper and stored.is_scored
    }


def _chosen(questions: Sequence[Question], verdicts: Verdicts) -> list[str | None]:
    """The text of the choice that each answer is; None: not one."""
    return [
        None if verdict.choice_index is None else question.choices[verdict.choice_index]
        for question, verdict in zip(questions, verdicts, strict=True)
    ]
