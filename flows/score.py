"""Score predictions that any tool wrote: `python -m flows.score FILE --benchmark NAME`.

Prints the accuracy under both scorers by task, difficulty and sub-category, with the number of
questions and Wilson's 95 % interval, and writes score and verdicts beside FILE. Needs neither torch
nor audio nor Prefect, which takes longer to import than scoring takes; the flow is in
flows/serving/prefect_flows.py.

What is written beside `predictions.json` is `predictions.json.score.json` and so on: files in one
folder never write over each other's score, nor over an evaluation's own.
"""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from flows import DEFAULT_WORKSPACE
from model.score.foreign import Imported, read_predictions
from model.score.imported import write_imported
from model.score.scorers import judge_all, score, submission_rows
from reports.numbers.score_text import SCORERS, render
from reports.numbers.statistics import mmsu_rule
from storage.benchmarks.parse import read_questions
from storage.benchmarks.published import (
    find_published,
    list_published,
    prepare_questions,
    read_benchmark,
)
from storage.config import BenchmarkConfig
from storage.errors import PipelineError
from storage.jsonl import write_json
from storage.layout import Layout
from storage.manifest import file_digest
from storage.records.evaluation import Coverage, Hashes, Score, Source, Verdict, write_verdicts
from storage.records.question import Question, is_key_of, list_ids
from storage.text import printable


class Scored(NamedTuple):
    """A file of predictions, scored."""

    score: Score
    """Content of score.json."""
    verdicts: list[Verdict]
    """In the benchmark's order."""
    questions: list[Question]
    imported: Imported


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = _options().parse_args(arguments)
    file, workspace = options.file, options.workspace
    scored = score_predictions(
        *(file, options.benchmark),
        questions=options.questions,
        workspace=workspace,
        allow_partial=options.allow_partial,
        key=options.key,
    )
    predictions = scored.imported.predictions
    tables = render(scored.score, scored.verdicts, answered=predictions)
    print(printable("\n".join([tables, *_further(scored, options.benchmark)])))
    print(f"\nwritten: {_beside(file, 'score.json')}, {_beside(file, 'verdicts.jsonl')}")
    if options.into:
        layout = Layout(workspace.absolute(), options.into)
        folder = write_imported(file, scored.score, scored.verdicts, predictions, layout)
        print(f"imported: {folder}; python -m flows.report shows it", file=sys.stderr)
    if not scored.score.scorers:
        path = _beside(file, "submission.json")
        write_json(path, submission_rows(scored.questions, predictions))
        print(f"written: {path}", file=sys.stderr)


def _beside(file: Path, name: str) -> Path:
    return file.with_name(f"{file.name}.{name}")


def _further(scored: Scored, benchmark: str) -> list[str]:
    """Second numbers, which never lead: without the listed errata, by the authors' own rule."""
    known = find_published(benchmark)
    if known is None or not scored.score.scorers:
        return []
    lines: list[str] = []
    kept = [verdict for verdict in scored.verdicts if verdict.id not in known.errata]
    if len(kept) < len(scored.verdicts):
        right = {rule: sum(verdict.of(rule) is True for verdict in kept) for rule in SCORERS}
        percents = ", ".join(f"{rule} {100 * n / len(kept):.2f}" for rule, n in right.items())
        lines.append(f"without listed errata (n = {len(kept)}): {percents}")
    if known.rule == "mmsu":
        given = [(scored.imported.predictions.get(q.id), q) for q in scored.questions]
        said = [mmsu_rule(prediction.text, q) for prediction, q in given if prediction]
        counted = len(said) - said.count(None)
        lines.append(f"by MMSU's own rule: {said.count(True)} right of {counted} readable answers")
    return ["", *lines] if lines else []


def score_predictions(
    file: Path,
    benchmark: str,
    *,
    questions: Path | None,
    workspace: Path,
    allow_partial: bool,
    key: str | None,
) -> Scored:
    """Score predictions that any tool wrote; writes score and verdicts beside them.

    A question without a prediction is wrong under both scorers. Without a file of `questions` they
    come from the workspace or the benchmark's address; without a `key`, any known one is read.

    Raises:
        PipelineError: If the questions cannot be had, or the file does not fit them or is partial
            and may not be.
    """
    if not file.is_file():  # said before the questions are downloaded
        msg = f"{file} is {'no file' if file.exists() else 'missing'}: name the predictions' file"
        raise PipelineError(msg)
    asked, digest = load_questions(benchmark, questions, workspace=workspace)
    imported = read_predictions(file, asked, key=key, others=lambda: _prepared(workspace))
    missing = [q.id for q in asked if q.id not in imported.predictions]
    num_answered = len(asked) - len(missing)
    if missing and not allow_partial:
        msg = (
            f"{file} covers {num_answered} of {len(asked)} questions; missing: "
            f"{list_ids(missing)}. Add them, or see the coverage with --allow-partial"
        )
        raise PipelineError(msg)
    verdicts = judge_all(asked, imported.predictions)
    hashes = Hashes(questions=digest, answers=file_digest(file))
    coverage = Coverage(num_answered=num_answered, num_questions=len(asked), missing=tuple(missing))
    of_file = {"coverage": coverage, "source": Source(file=file.name, key=imported.key)}
    counted = score(asked, verdicts, SCORERS, benchmark=benchmark, hashes=hashes)
    counted = counted.model_copy(update=of_file)
    counted.write(_beside(file, "score.json"))
    write_verdicts(_beside(file, "verdicts.jsonl"), verdicts)
    return Scored(counted, verdicts, asked, imported)


def load_questions(
    benchmark: str, path: Path | None, *, workspace: Path
) -> tuple[list[Question], str]:
    """A benchmark's questions, from `path`, the workspace or its address, and their file's sha256.

    Raises:
        PipelineError: If they cannot be had, are not what the name stands for, or several versions
            share the name: their numbers cannot be compared.
    """
    published = list_published()
    versions = [name for name in published if name.startswith(f"{benchmark}-")]
    if versions and benchmark not in published:
        msg = f"{benchmark} names no version: say which of {', '.join(versions)} was answered"
        raise PipelineError(msg)
    if path is not None:
        return read_benchmark(benchmark, path), file_digest(path)
    root = workspace / "benchmarks"
    known = [folder for folder in sorted(root.glob("*-*")) if is_key_of(folder.name, benchmark)]
    if benchmark in published or not known:
        kept = prepare_questions(BenchmarkConfig(name=benchmark), root)
    elif len(known) == 1:
        kept = known[0] / "questions.json"
    else:
        files = ", ".join(str(folder / "questions.json") for folder in known)
        msg = f"{benchmark} stands for several files of questions: name one by --questions: {files}"
        raise PipelineError(msg)
    return read_questions(kept), file_digest(kept)


def _prepared(workspace: Path) -> dict[str, list[Question]]:
    """The questions of every benchmark in a workspace, by its folder's name."""
    found: dict[str, list[Question]] = {}
    for path in sorted((workspace / "benchmarks").glob("*/questions.json")):
        with contextlib.suppress(PipelineError):  # a damaged one can tell nothing
            found[path.parent.name] = read_questions(path)
    return found


def _options() -> argparse.ArgumentParser:
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m flows.score", description=summary)
    add = parser.add_argument
    add("file", type=Path, help="predictions of any known tool: JSON, JSON lines, CSV")
    add("--benchmark", required=True, help="e.g. mmau-test-mini-v05.15.25")
    add("--key", help="key of the predictions (default: any known one)")
    add("--questions", type=Path, help="the questions' file, if you have it here")
    add("--allow-partial", action="store_true", help="show how far an incomplete file goes")
    add("--into", metavar="EXPERIMENT", help="add the predictions to an experiment's report")
    add("--workspace", type=Path, default=Path(DEFAULT_WORKSPACE), help="folder of all data")
    return parser


if __name__ == "__main__":
    from flows.command import run_command  # brings the profiles

    run_command(main)
