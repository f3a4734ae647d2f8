"""What one model gained over another."""

from reports.numbers.comparisons import pairs, sections
from reports.report import Report


def test_a_gain_where_one_answer_was_unreadable_is_told_from_one_in_hearing(report):
    """A gain of nine points under strict was format alone, and nothing said so."""
    pair = next(iter(pairs(report)))
    strict = next(found for found in sections(report, pair) if found.scorer == "strict")
    first, second = (report.by_key[key] for key in strict.keys)
    marks = ("0000110000", "1111010100")
    parsed = ("0001111100", "1111101101")
    left = len(first.parsed) - 10
    changed = [
        sheet.model_copy(
            update={"marks": {"strict": mark + "0" * left}, "parsed": read + "1" * left}
        )
        for sheet, mark, read in zip((first, second), marks, parsed, strict=True)
    ]
    others = [sheet for sheet in report.evaluations if sheet not in (first, second)]
    dumped = report.model_dump() | {"evaluations": (*others, *changed)}
    shown = Report.model_validate(dumped)
    (found,) = (each for each in sections(shown, pair) if each.scorer == "strict")
    assert len(found.gained) - len(found.lost) == 4
    assert found.by_form == 3
