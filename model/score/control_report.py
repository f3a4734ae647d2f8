"""What the controls say: what the audio is worth, whether answers follow the text or the place.

Read from the verdicts of a model's control runs beside those of its proper run, and counted with
integers; shares are taken where they are shown.

- Audio contribution: right with the clip minus right with the control's, by task, of the same
  questions. A model that keeps its score under silence has not listened.
- Questions that need the audio: those that the start model gets wrong under silence; a gain on them
  is a gain in hearing, a gain on the others may be one in format or guessing.
- Consistency: questions whose chosen text is the same in every order of the choices: four orders,
  the proper one included, or as many as there are choices where these are fewer (two of two, three
  of three; an order that comes again is not asked twice). Always answering "A" is consistent on no
  question. Right in all: consistent, and right.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from model.answers import resolve_choice
from model.config import PromptName, ScorerName
from model.score.controls import (
    SHIFT_PREFIX,
    asked_questions,
    first_choice,
    longest_choice,
    shift_of,
)
from model.score.scorers import (
    GROUPS,
    Prediction,
    Tally,
    Verdict,
    judge_all,
    read_verdicts,
    score,
    tally,
)
from storage.jsonl import Record, write_json
from storage.records.question import Question

Verdicts = Sequence[Verdict]


def write_control_report(
    folder: Path,
    questions: Sequence[Question],
    *,
    prompt: PromptName,
    scorers: Sequence[ScorerName],
    start_model: Path | None = None,
) -> Record | None:
    """Write `controls.json` beside a model's runs on one benchmark.

    Args:
        folder: `evaluation/<model>/<benchmark>`.
        questions: The benchmark's.
        prompt: Prompt of the proper run.
        scorers: Scorers to count with.
        start_model: The same folder of the model that the training started from, whose silent run
            tells which questions need the audio; None: the model's own.

    Returns:
        The file's content; None where there is no proper run, or no control of it.
    """
    runs = _runs(folder, prompt)
    proper = runs.pop(prompt, None)
    if proper is None or not runs:
        return None
    deaf = _runs(start_model or folder, prompt).get(f"{prompt}+silence")
    by_control = {name.partition("+")[2]: verdicts for name, verdicts in runs.items()}
    shifted = {n: v for n, v in by_control.items() if n.startswith(SHIFT_PREFIX)}
    record: Record = {
        "prompt": prompt,
        "contribution": {
            scorer: {
                name: contribution(questions, proper, verdicts, scorer)
                for name, verdicts in by_control.items()
                if name not in shifted
            }
            for scorer in scorers
        },
        "needs_audio": {
            scorer: asdict(right_where_deaf_is_wrong(proper, deaf, scorer))
            for scorer in scorers
            if deaf is not None
        },
        "order": order_consistency(questions, proper, shifted) if shifted else None,
        "baselines": baselines(questions, scorers),
    }
    write_json(folder / "controls.json", record)
    return record


def contribution(
    questions: Sequence[Question], heard: Verdicts, control: Verdicts, scorer: ScorerName
) -> Record:
    """Right with the clip and right under a control, overall and by group.

    Returns:
        `{"overall": {"num_heard", "num_control", "num_questions"}, "task": {...}, ...}`.
    """
    triples = [
        (question, _is_right(one, scorer), _is_right(other, scorer))
        for question, one, other in zip(questions, heard, control, strict=True)
    ]
    counted: Record = {"overall": _count_pairs([triple[1:] for triple in triples])}
    for group, label_of in GROUPS.items():
        by_label: dict[str, list[tuple[bool, bool]]] = {}
        for question, one, other in triples:
            by_label.setdefault(label_of(question), []).append((one, other))
        counted[group] = {label: _count_pairs(by_label[label]) for label in sorted(by_label)}
    return counted


def right_where_deaf_is_wrong(heard: Verdicts, deaf: Verdicts, scorer: ScorerName) -> Tally:
    """Right answers to the questions that a model gets wrong under silence."""
    pairs = zip(heard, deaf, strict=True)
    return tally(_is_right(one, scorer) for one, other in pairs if not _is_right(other, scorer))


def order_consistency(
    questions: Sequence[Question], proper: Verdicts, shifted: Mapping[str, Verdicts]
) -> Record:
    """How often the chosen text is the same, and right, in every order of the choices.

    Returns:
        `{"num_consistent", "num_right_in_all", "num_questions", "num_orders"}`; an answer that is
        no choice is consistent with nothing. Of shifts that give a question the same order the
        first counts, so a repeated decoding cannot disagree with itself.
    """
    chosen = {0: _chosen(questions, proper)}
    for control, verdicts in shifted.items():
        chosen[shift_of(control)] = _chosen(asked_questions(questions, control), verdicts)
    consistent: list[bool] = []
    right_in_all: list[bool] = []
    for index, question in enumerate(questions):
        by_order: dict[int, str | None] = {}
        for shift in sorted(chosen):
            by_order.setdefault(shift % len(question.choices), chosen[shift][index])
        texts = set(by_order.values())
        consistent.append(len(texts) == 1 and None not in texts)
        right_in_all.append(consistent[-1] and question.answer in texts)
    return {
        "num_consistent": sum(consistent),
        "num_right_in_all": sum(right_in_all),
        "num_questions": len(questions),
        "num_orders": len(chosen),
    }


def baselines(questions: Sequence[Question], scorers: Sequence[ScorerName]) -> Record:
    """Scores of rules that neither hear nor read: always the first choice, always the longest."""
    rules: dict[str, Callable[[Question], str]] = {
        "first-choice": first_choice,
        "longest-choice": longest_choice,
    }
    counted: Record = {}
    for name, rule in rules.items():
        said = {question.id: Prediction(rule(question), rule(question)) for question in questions}
        counted[name] = score(questions, judge_all(questions, said), scorers)["scorers"]
    return counted


def _runs(folder: Path, prompt: PromptName) -> dict[str, Verdicts]:
    """The verdicts of a model's proper run and of its controls, by folder name."""
    paths = sorted(folder.glob("*/verdicts.jsonl"))
    return {
        path.parent.name: read_verdicts(path)
        for path in paths
        if path.parent.name.partition("+")[0] == prompt
    }


def _chosen(questions: Sequence[Question], verdicts: Verdicts) -> list[str | None]:
    chosen: list[str | None] = []
    for question, verdict in zip(questions, verdicts, strict=True):
        index = resolve_choice(verdict.answer or "", question.choices).choice_index
        chosen.append(None if index is None else question.choices[index])
    return chosen


def _is_right(verdict: Verdict, scorer: ScorerName) -> bool:
    return verdict.verdict_of(scorer) is True


def _count_pairs(pairs: Sequence[tuple[bool, bool]]) -> dict[str, int]:
    return {
        "num_heard": sum(one for one, _ in pairs),
        "num_control": sum(other for _, other in pairs),
        "num_questions": len(pairs),
    }
