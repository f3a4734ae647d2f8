"""Rules of benchmarks' own authors, where they are not MMAU's: shown beside ours, never leading."""

from storage.records.question import Question


def mmsu_rule(completion: str, question: Question) -> bool | None:
    """Right or wrong as MMSU's script has it; None: it reads no letter, and counts no question.

    Source: dingdongwang/MMSU@217d1d3:mmsu_evaluation.py. The first character, else the last but
    one, is the letter; an empty answer is wrong.
    """
    text = completion.strip().replace("\n", "")
    if text in {"", "None"}:
        return False
    letter = next((place for place in (text[0], text[-2:-1]) if place and place in "ABCD"), None)
    if letter is None:
        return None
    return dict(zip("ABCD", question.choices, strict=False)).get(letter) == question.answer
