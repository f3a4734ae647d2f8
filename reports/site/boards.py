"""The leaderboard as the pages show it: one table a benchmark version and scorer.

One row a training, the step that leads, with its steps folded under it; start models, further
models and published rows stand where their average puts them. The larger Test split stands beside
Test-mini where results for it are there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from reports.numbers.achievements import PAPER_SOURCE, resolution
from reports.numbers.leaderboard import LeaderboardRow, larger_split, task_names
from reports.report import Report
from reports.site.links import source_link
from storage.records.question import Question

MOST_NEAR = 10  # published rows beside our best that are not folded


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a table."""

    row: LeaderboardRow
    name: str
    """A training's name, `step 100` under it, or a model."""
    detail: str
    """E.g. `SFT, LoRA, prompt plain, step 600 (chosen on validation)`."""
    splits: Sequence[LeaderboardRow | None]
    """Test-mini, and Test where the table has it."""
    link: str | None = None
    """Page of a training or of one of our models."""
    source_link: str = ""
    """Of a published row, written by us; empty where we know none."""
    note_letter: str = ""
    """In the board's list of notes; empty without a note."""
    is_far: bool = False
    """A published row that is folded: not the paper's, nor near our best."""
    steps: Sequence["Line"] = ()
    """A training's, in order, the leading one too."""


@dataclass(frozen=True, slots=True)
class Board:
    """One table."""

    title: str
    caption: str
    tasks: Sequence[str]
    splits: Sequence[str]
    lines: Sequence[Line]
    sources: Sequence[str]
    """Of the published rows, each once, with their dates."""
    notes: Mapping[str, str]
    """By letter."""

    @property
    def has_test(self) -> bool:
        """Whether Test stands beside Test-mini."""
        return len(self.splits) > 1


@dataclass(frozen=True, slots=True)
class Boards:
    """The tables of one benchmark, and what to know when reading them."""

    benchmark: str
    num_questions: int
    gap: float | None
    """Smallest difference that is found with 80 % power; None: none is."""
    flip_share: float
    """Of the questions that neighbouring checkpoints answer otherwise."""
    baselines: tuple[float, float, float] | None
    """Percent right of rules without ears: the first choice, the longest, a random one."""
    tables: Sequence[Board]
    about: str
    """Title and note of a known benchmark."""
    further_heads: Sequence[str]
    """Second numbers, under the leading scorer."""
    further: Sequence[LeaderboardRow]
    """Our rows that have them."""


def boards(
    report: Report, rows: Sequence[LeaderboardRow], links: Mapping[str, str]
) -> list[Boards]:
    """For each benchmark that was scored."""
    found: list[Boards] = []
    for benchmark in report.benchmarks:
        ours = [row for row in rows if row.benchmark == benchmark.name and row.is_ours]
        scorers = list(dict.fromkeys(row.scorer for row in ours))
        if scorers:
            tables = [_board(benchmark.name, scorer, rows, links) for scorer in scorers]
            gap, flips = resolution(report, benchmark, scorers[0])
            size, rules = len(benchmark.questions), _baselines(benchmark.questions)
            lead = [row for row in ours if row.scorer == scorers[0] and row.further]
            heads = list(dict.fromkeys(name for row in lead for name in row.further))
            about = benchmark.about
            found.append(
                Boards(benchmark.name, size, gap, flips, rules, tables, about, heads, lead)
            )
    return found


def _board(
    benchmark: str, scorer: str, rows: Sequence[LeaderboardRow], links: Mapping[str, str]
) -> Board:
    ours = [
        row for row in rows if row.is_ours and (row.benchmark, row.scorer) == (benchmark, scorer)
    ]
    published = [row for row in rows if not row.is_ours and row.benchmark == benchmark]
    published.sort(key=_rank)
    test = {_key(row): row for row in rows if row.benchmark == larger_split(benchmark)}
    tasks = task_names([*ours, *published])
    sources = list(dict.fromkeys(_source(row) for row in published))
    texts = list(dict.fromkeys(row.note for row in published if row.note))
    letters = {text: _letter(index) for index, text in enumerate(texts)}

    def splits(row: LeaderboardRow) -> list[LeaderboardRow | None]:
        return [row, test.get(_key(row))] if test else [row]

    best = max((row.average.percent for row in ours if row.average), default=0.0)
    near = sorted(published, key=lambda row: abs(_rank(row) + best))[:MOST_NEAR]
    lines = [
        Line(
            row=row,
            name=row.model,
            detail=row.method,
            splits=splits(row),
            source_link=source_link(row.source),
            note_letter=letters.get(row.note, ""),
            is_far=row.source != PAPER_SOURCE and row not in near,
        )
        for row in published
    ]
    caption = f"{scorer.capitalize()} scorer"
    if published and scorer != "official":
        caption += "; published rows are under the official one"
    return Board(
        title=f"{benchmark}, {scorer} scorer",
        caption=caption,
        tasks=tasks,
        splits=["test-mini", "test"] if test else ["test-mini"],
        lines=sorted(_our_lines(ours, splits, links) + lines, key=lambda line: _rank(line.row)),
        sources=sources,
        notes={letter: text for text, letter in letters.items()},
    )


def _our_lines(
    rows: Sequence[LeaderboardRow],
    splits: Callable[[LeaderboardRow], list[LeaderboardRow | None]],
    links: Mapping[str, str],
) -> list[Line]:
    """A line a training and prompt, and one for each other model."""
    groups: dict[tuple[str, str], list[LeaderboardRow]] = {}
    for row in rows:
        groups.setdefault((row.training or row.model, row.prompt), []).append(row)
    found: list[Line] = []
    for (name, prompt), group in groups.items():
        lead = group[0]  # the leading step stands first
        steps = sorted(group, key=lambda row: row.step or 0) if lead.training else []
        detail = f"{lead.method}, prompt {prompt}"
        if lead.step is not None:
            why = "; ".join(mark.text for mark in lead.marks if mark.kind != "best")
            detail += f", step {lead.step}" + (f" ({why})" if why else "")
        found.append(
            Line(
                row=lead,
                name=name,
                detail=detail,
                splits=splits(lead),
                link=links.get(lead.model),
                steps=[Line(row, f"step {row.step}", "", splits(row)) for row in steps],
            )
        )
    return found


def _rank(row: LeaderboardRow) -> float:
    return -row.average.percent if row.average else 0.0


def _key(row: LeaderboardRow) -> tuple[str, str, str, str, str]:
    """What is the same on both splits of a benchmark."""
    return (row.model, row.method, row.prompt, row.scorer, row.source)


def _source(row: LeaderboardRow) -> str:
    return f"{row.source}, {row.date}" if row.date else row.source


def _letter(index: int) -> str:
    """The letters a to z, then aa, ab and so on."""
    return chr(ord("a") + index) if index < 26 else _letter(index // 26 - 1) + _letter(index % 26)


def _baselines(questions: Sequence[Question]) -> tuple[float, float, float] | None:
    """What rules without ears score where answers are known; right is what equals the answer."""
    known = [question for question in questions if question.answer is not None]
    if not known:
        return None
    first = sum(question.choices[0] == question.answer for question in known)
    longest = sum(max(question.choices, key=len) == question.answer for question in known)
    chance = sum(1 / len(question.choices) for question in known)
    return 100 * first / len(known), 100 * longest / len(known), 100 * chance / len(known)
