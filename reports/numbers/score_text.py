"""A score as text: accuracies by group with their intervals, and why answers were wrong."""

from collections import Counter
from collections.abc import Collection, Sequence

from reports.numbers.statistics import wilson
from storage.records.evaluation import Score, ScorerName, Tally, Verdict
from storage.records.question import list_ids

SCORERS: tuple[ScorerName, ...] = ("official", "strict")
GROUPS = ("task", "difficulty", "category", "sub-category")
FIRST = ("sound", "music", "speech", "easy", "medium", "hard")


def render(score: Score, verdicts: Sequence[Verdict], *, answered: Collection[str]) -> str:
    """Tables of a file's score."""
    total, unparsed = score.num_questions, score.num_unparsed
    missing = [] if score.coverage is None else list(score.coverage.missing)
    lines = [
        f"{score.benchmark}: {score.source.file}, key {score.source.key!r}"
        if score.source
        else score.benchmark,
        f"answered {total - len(missing)} of {total}; "
        f"no single choice found in {unparsed} ({100 * unparsed / total:.1f} %)",
    ]
    if missing:
        lines.append(
            f"PARTIAL: {len(missing)} questions have no prediction and count as wrong; "
            f"this is no score of the benchmark: {list_ids(missing)}"
        )
        lines += [_answered_line(verdicts, answered, scorer) for scorer in score.scorers]
    if not score.scorers:
        told = "the answers of this benchmark are withheld: no score, but a file to submit"
        return "\n".join([*lines, told])
    lines += ["", f"{'':32}{'n':>5}" + "".join(f"{name:>9} {'95 %':<11}" for name in SCORERS)]
    lines.append(_line("all", [score.scorers[name].overall for name in SCORERS]))
    for group in GROUPS:
        tallies = [score.scorers[name].groups[group] for name in SCORERS]
        if set(tallies[0]) != {""}:
            lines += ["", group]
            lines += [
                _line(f"  {label or 'none given'}", [by_label[label] for by_label in tallies])
                for label in sorted(tallies[0], key=_usual_order)
            ]
    reasons = _count_reasons(verdicts)
    return "\n".join([*lines, "", "why (strict)", *reasons])


def _answered_line(verdicts: Sequence[Verdict], answered: Collection[str], scorer: str) -> str:
    given = [verdict.of(scorer) is True for verdict in verdicts if verdict.id in answered]
    share = f" ({100 * sum(given) / len(given):.2f})" if given else ""
    return f"  of the answered ones, right ({scorer}): {sum(given)} of {len(given)}{share}"


def _line(label: str, tallies: Sequence[Tally]) -> str:
    cells = ""
    for counted in tallies:
        low, high = wilson(counted)
        interval = f"{100 * low:.1f}-{100 * high:.1f}"
        cells += f"{100 * counted.accuracy:>9.2f} {interval:<11}"
    return f"{label[:32]:<32}{tallies[0].num_questions:>5}{cells}".rstrip()


def _count_reasons(verdicts: Sequence[Verdict]) -> list[str]:
    counts = Counter(verdict.reason for verdict in verdicts)
    return [f"  {reason:<50}{count:>5}" for reason, count in counts.most_common()]


def _usual_order(label: str) -> tuple[int, str]:
    return (FIRST.index(label) if label in FIRST else len(FIRST), label)
