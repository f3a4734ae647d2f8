"""Which question each row answers, and what the row says otherwise than the benchmark.

A row without an id is matched by its clip, else by the question in its prompt and the choices after
it, in their order: MMAU asks "Did any speaker's emotion shift?" of three clips, with the same
choices otherwise ordered. Where questions are alike in all of it (three of MMAU's original ask for
the beat count), rows are taken in the benchmark's order, if there are as many of them.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from model.score.foreign.row import Fault, Row, plain
from storage.records.question import Question, list_ids

MARKUP = re.compile(r"<[^<>]*>")  # "<audio>", "<sound>" before a question
LETTER = re.compile(r"(?:\(([A-Z])\)|([A-Z])(?:[.):]|$))\s*(.*)", re.IGNORECASE | re.DOTALL)


def match_rows(
    rows: Sequence[Row], questions: Sequence[Question]
) -> tuple[list[str | None], list[Fault]]:
    """The question id of each row, None where there is none, and the faults of such rows."""
    known = {question.id for question in questions}
    texts = [(plain(question.question), question) for question in questions]
    ids_by_clip: dict[str, tuple[str, ...]] = {}
    for question in questions:
        clip = Path(question.clips[0]).stem
        ids_by_clip[clip] = (*ids_by_clip.get(clip, ()), question.id)
    faults: list[Fault] = []
    rows_by_ids: dict[tuple[str, ...], list[int]] = {}
    for index, row in enumerate(rows):
        by_clip = ids_by_clip.get(row.clip, ())
        if row.id is not None:
            ids = (row.id,) if row.id in known else ()
        else:
            ids = by_clip if len(by_clip) == 1 else _ids_in(row.prompt, texts)
        if ids:
            rows_by_ids.setdefault(ids, []).append(index)
        elif row.id is not None:
            faults.append(Fault("ids are not in the benchmark", row.id))
        else:
            kind = "rows have no id, and their prompt holds no question of this benchmark"
            faults.append(Fault(kind, row.place))
    names: list[str | None] = [None] * len(rows)
    for ids, indices in rows_by_ids.items():
        if 1 < len(ids) != len(indices):
            kind = f"rows ask what {len(ids)} questions ask, which is which cannot be told: add ids"
            faults += [Fault(kind, rows[index].place, list_ids(ids)) for index in indices]
            continue
        for place, index in enumerate(indices):
            names[index] = ids[min(place, len(ids) - 1)]
    count_by_id = Counter(name for name in names if name is not None)
    kind = "questions have more than one prediction"
    faults += [Fault(kind, name) for name, count in count_by_id.items() if count > 1]
    return names, faults


def differences(row: Row, question: Question) -> Iterator[Fault]:
    """What a row says otherwise than the question that it answers."""
    # Most rows hold the very texts: only others are looked at closer.
    if row.question not in (None, question.question) and not _asks(row.question, question):
        told = f"{row.question!r}, expected {question.question!r}"
        yield Fault("rows carry another question than the benchmark", question.id, told)
    is_offered = row.choices in ((), "", question.choices)
    if not is_offered and not _offers(row.choices, question):
        told = f"{row.choices!r}, expected {question.choices!r}"
        kind = "rows carry other choices than the benchmark, or another order of them"
        yield Fault(kind, question.id, told)
    elif row.gold not in (None, question.answer) and not _is_answer(row.gold, question):
        told = f"{row.gold!r}, expected {question.answer!r}"
        yield Fault("rows carry another answer than the benchmark", question.id, told)


def _asks(text: str, question: Question) -> bool:
    """Whether a text is the question, alone or in a prompt with the choices after it."""
    asked, wanted = (plain(MARKUP.sub("", said)) for said in (text, question.question))
    rest = asked.partition(wanted)[2]
    return asked == wanted or (wanted in asked and _holds_in_order(rest, question.choices))


def _offers(choices: tuple[str, ...] | str, question: Question) -> bool:
    if isinstance(choices, str):
        return _holds_in_order(plain(choices), question.choices)
    offered, wanted = tuple(map(plain, choices)), tuple(map(plain, question.choices))
    # A choice of the benchmark may itself begin with a letter.
    unlettered = tuple(found[3] if (found := LETTER.fullmatch(text)) else text for text in offered)
    return wanted in (offered, unlettered)


def _is_answer(gold: object, question: Question) -> bool:
    """Whether a row's right choice is the question's, as text, letter or position."""
    if question.answer is None or not isinstance(gold, str | int):
        return True  # withheld, or nothing that could be compared
    right = [i for i, choice in enumerate(question.choices) if choice == question.answer]
    text, answer = plain(str(gold)), plain(question.answer)
    if text in map(plain, question.choices):  # "2" is a text among ["1", "2", "3"]
        return text == answer
    if lettered := LETTER.fullmatch(text):
        letter = (lettered[1] or lettered[2]).upper()
        return ord(letter) - ord("A") in right and lettered[3] in ("", answer)
    return text in map(str, right)


def _ids_in(prompt: str, texts: Sequence[tuple[str, Question]]) -> tuple[str, ...]:
    """Ids of the questions whose text a prompt holds, and then their choices in their order.

    Of the longest such text, and of those the ones with the longest choices.
    """
    asked = plain(prompt)
    found = [
        ((len(text), sum(map(len, question.choices))), question.id)
        for text, question in texts
        if text in asked and _holds_in_order(asked.partition(text)[2], question.choices)
    ]
    longest = max((lengths for lengths, _ in found), default=None)
    return tuple(name for lengths, name in found if lengths == longest)


def _holds_in_order(text: str, choices: Sequence[str]) -> bool:
    """Whether a text holds the choices one after the other, each as words of its own."""
    place = 0
    for choice in choices:
        match = re.compile(rf"(?<!\w){re.escape(plain(choice))}(?!\w)").search(text, place)
        if match is None:
            return False
        place = match.end()
    return True
