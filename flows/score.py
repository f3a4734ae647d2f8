"""Score predictions that any tool wrote: `python -m flows.score FILE --benchmark NAME`.

Prints the accuracy under both scorers by task, difficulty and sub-category, with the number of
questions and Wilson's 95 % interval, and writes score.json and verdicts.jsonl beside FILE. Needs
neither torch nor audio, and Prefect only where this module is imported as a flow.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from model.config import ScorerName
from model.score.foreign import Imported, read_predictions
from model.score.scorers import judge_all, score, submission_rows, tally
from reports.numbers.statistics import wilson
from storage.benchmarks.parse import read_questions
from storage.benchmarks.published import find_published, prepare_questions, read_benchmark
from storage.config import BenchmarkConfig
from storage.errors import PipelineError
from storage.jsonl import read_json, write_json
from storage.manifest import file_digest
from storage.records.evaluation import (
    Coverage,
    Hashes,
    Score,
    Source,
    Tally,
    Verdict,
    write_verdicts,
)
from storage.records.question import Question, list_ids

SCORERS: tuple[ScorerName, ...] = ("official", "strict")
GROUPS = ("task", "difficulty", "category", "sub-category")
FIRST = ("sound", "music", "speech", "easy", "medium", "hard")


class Scored(NamedTuple):
    """A file of predictions, scored."""

    score: Score
    """Content of score.json."""
    verdicts: list[Verdict]
    """In the benchmark's order."""
    questions: list[Question]
    imported: Imported


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = _options().parse_args(arguments)
    folder = options.output or _output_folder(options.file.absolute().parent)
    questions, digest = load_questions(
        options.benchmark, options.questions, workspace=options.workspace
    )
    scored = score_file(
        options.file,
        questions,
        benchmark=options.benchmark,
        questions_sha256=digest,
        allow_partial=options.allow_partial,
    )
    scored.score.write(folder / "score.json")
    write_verdicts(folder / "verdicts.jsonl", scored.verdicts)
    if options.json:
        print(json.dumps(scored.score.as_json(), ensure_ascii=False))
    else:
        print(render(scored, options.file))
        print(f"\nwritten: {folder / 'score.json'}, {folder / 'verdicts.jsonl'}")
    if not scored.score.by_scorer or options.submit:
        path = folder / "submission.json"
        write_json(path, submission_rows(scored.questions, scored.imported.predictions))
        print(f"written: {path}", file=sys.stderr)
        if options.submit:
            print(_submit(path, options.benchmark))
    return 0


def _output_folder(folder: Path) -> Path:
    """Beside the file; for answers of our own evaluation one below: its score.json stays."""
    return folder / "scored" if (folder / "run.json").exists() else folder


def load_questions(
    benchmark: str, path: Path | None, *, workspace: Path
) -> tuple[list[Question], str]:
    """A benchmark's questions, from `path`, the workspace or its address, and their file's sha256.

    Raises:
        PipelineError: If they cannot be had or are not what the name stands for.
    """
    if path is not None:
        return read_benchmark(benchmark, path), file_digest(path)
    folder = workspace / "benchmarks" / benchmark
    kept = folder / "questions.json"
    if find_published(benchmark) is not None or not kept.exists():
        kept = prepare_questions(BenchmarkConfig(name=benchmark), folder)
    return read_questions(kept), file_digest(kept)


def score_file(
    path: Path,
    questions: list[Question],
    *,
    benchmark: str,
    questions_sha256: str,
    allow_partial: bool = False,
) -> Scored:
    """Score a file; a question without a prediction is wrong under both scorers.

    Raises:
        PipelineError: If the file cannot be matched to the questions, or is partial and may not be.
    """
    imported = read_predictions(path, questions)
    missing = [q.id for q in questions if q.id not in imported.predictions]
    if missing and not allow_partial:
        msg = (
            f"{path} covers {len(questions) - len(missing)} of {len(questions)} questions; "
            f"missing: {list_ids(missing)}. Add them, or see the coverage with --allow-partial"
        )
        raise PipelineError(msg)
    verdicts = judge_all(questions, imported.predictions)
    coverage = Coverage(
        num_answered=len(questions) - len(missing),
        num_questions=len(questions),
        missing=tuple(missing),
    )
    hashes = Hashes(questions=questions_sha256, answers=file_digest(path))
    counted = score(questions, verdicts, SCORERS, benchmark=benchmark, hashes=hashes)
    source = Source(file=path.name, key=imported.key)
    counted = counted.model_copy(update={"coverage": coverage, "source": source})
    return Scored(counted, verdicts, questions, imported)


def render(scored: Scored, path: Path) -> str:
    """The tables as text."""
    counted = scored.score
    total, unparsed = counted.num_questions, counted.num_unparsed
    missing = [] if counted.coverage is None else list(counted.coverage.missing)
    lines = [
        f"{counted.benchmark}: {path.name}, key {scored.imported.key!r}",
        f"answered {total - len(missing)} of {total}; "
        f"no single choice found in {unparsed} ({100 * unparsed / total:.1f} %)",
    ]
    if missing:
        lines.append(
            f"PARTIAL: {len(missing)} questions have no prediction and count as wrong; "
            f"this is no score of the benchmark: {list_ids(missing)}"
        )
        lines += [_answered_line(scored, scorer) for scorer in counted.by_scorer]
    if not counted.by_scorer:
        told = (
            "the answers of this benchmark are withheld: no score, but a file to submit (--submit)"
        )
        return "\n".join([*lines, told])
    lines += ["", f"{'':34}{'n':>5}" + "".join(f"{name:>10}  {'95 %':<13}" for name in SCORERS)]
    lines.append(_line("all", [counted.by_scorer[name].overall for name in SCORERS]))
    for group in GROUPS:
        tallies = [counted.by_scorer[name].groups[group] for name in SCORERS]
        if set(tallies[0]) != {""}:
            lines += ["", group]
            lines += [
                _line(f"  {label or 'none given'}", [by_label[label] for by_label in tallies])
                for label in sorted(tallies[0], key=_usual_order)
            ]
    reasons = _count_reasons(scored.verdicts)
    return "\n".join([*lines, "", "why (strict)", *reasons])


def _answered_line(scored: Scored, scorer: str) -> str:
    given = scored.imported.predictions
    right = tally(verdict.of(scorer) is True for verdict in scored.verdicts if verdict.id in given)
    share = f" ({100 * right.accuracy:.2f})" if right.num_questions else ""
    counts = f"{right.num_correct} of {right.num_questions}"
    return f"  of the answered ones, right ({scorer}): {counts}{share}"


def _line(label: str, tallies: Sequence[Tally]) -> str:
    cells = ""
    for counted in tallies:
        low, high = wilson(counted.num_correct, counted.num_questions)
        interval = f"{100 * low:.1f}-{100 * high:.1f}"
        cells += f"{100 * counted.accuracy:>10.2f}  {interval:<13}"
    return f"{label[:34]:<34}{tallies[0].num_questions:>5}{cells}".rstrip()


def _count_reasons(verdicts: Sequence[Verdict]) -> list[str]:
    counts: dict[str, int] = {}
    for verdict in verdicts:
        counts[verdict.reason] = counts.get(verdict.reason, 0) + 1
    ordered = sorted(counts, key=lambda reason: -counts[reason])
    return [f"  {reason:<50}{counts[reason]:>5}" for reason in ordered]


def _usual_order(label: str) -> tuple[int, str]:
    return (FIRST.index(label) if label in FIRST else len(FIRST), label)


def _submit(path: Path, benchmark: str) -> str:
    from storage.benchmarks.submission import submit  # noqa: PLC0415  brings requests

    published = find_published(benchmark)
    if published is None or published.submit is None:
        msg = f"{benchmark} has no service that scores submissions; {path} is there for you to send"
        raise PipelineError(msg)
    return submit(path, published.submit, num_questions=published.num_questions, ask=_ask)


def _ask(question: str) -> bool:
    """Ask a person; without one the answer is no."""
    if not sys.stdin.isatty():
        return False
    return input(f"{question} Type yes to go on: ").strip() == "yes"


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.score", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("file", type=Path, help="predictions: JSON or JSON lines of any known tool")
    parser.add_argument("--benchmark", required=True, help="e.g. mmau-test-mini-v05.15.25")
    parser.add_argument("--questions", type=Path, help="the questions' file, if you have it here")
    parser.add_argument(
        "--allow-partial", action="store_true", help="show how far an incomplete file goes"
    )
    parser.add_argument("--output", type=Path, help="folder for score.json (default: FILE's)")
    parser.add_argument("--json", action="store_true", help="print score.json instead of tables")
    parser.add_argument(
        "--submit", action="store_true", help="send a test split's predictions off, after asking"
    )
    parser.add_argument(
        "--workspace", type=Path, default=Path("workspace"), help="folder of all data"
    )
    return parser


if __name__ == "__main__":
    from flows.command import run_command

    run_command(main)
else:  # Prefect takes longer to import than scoring takes: only who wants the flow waits for it
    from prefect import flow

    @flow(name="score")
    def score_flow(
        file: Path,
        benchmark: str,
        questions: Path | None = None,
        allow_partial: bool = False,  # noqa: FBT001, FBT002  Prefect passes parameters by name
        workspace: Path = Path("workspace"),
    ) -> dict[str, Any]:
        """Score predictions that any tool wrote; writes score.json and verdicts.jsonl beside them.

        Args:
            file: Predictions: JSON or JSON lines of any known tool.
            benchmark: E.g. `mmau-test-mini-v05.15.25`.
            questions: The questions' file, where it is here already.
            allow_partial: Show how far an incomplete file goes.
            workspace: Folder of all data.
        """
        options = [str(file), "--benchmark", benchmark, "--workspace", str(workspace)]
        options += ["--questions", str(questions)] if questions else []
        options += ["--allow-partial"] if allow_partial else []
        main(options)
        return read_json(_output_folder(file.absolute().parent) / "score.json")
