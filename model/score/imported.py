"""Another tool's predictions as a row of an experiment's report, beside the models asked here.

They lie where an evaluation does, with the role `imported` and the prompt `unknown`: how the other
tool asked and decoded is not in its file. The same file again is the same row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from model.score.scorers import Prediction
from storage import manifest
from storage.errors import PipelineError
from storage.jsonl import write_jsonl
from storage.layout import Layout
from storage.records.evaluation import (
    Answer,
    EvaluationRun,
    RunKey,
    Score,
    Verdict,
    list_runs,
    write_verdicts,
)
from storage.records.model import ModelRef, folder_key

PROMPT = "unknown"


def write_imported(
    file: Path,
    score: Score,
    verdicts: Sequence[Verdict],
    predictions: Mapping[str, Prediction],
    layout: Layout,
) -> Path:
    """Write a scored file of predictions into an experiment's evaluations; returns the folder.

    Raises:
        PipelineError: If the file is partial or without a score, or the experiment has not asked
            these questions.
    """
    if not score.scorers or (score.coverage and score.coverage.missing):
        reason = "leaves questions out" if score.scorers else "has no score: answers are withheld"
        msg = f"{file} {reason}: only a whole scored file becomes a row of {layout.experiment}"
        raise PipelineError(msg)
    asked = [stored.run for stored in list_runs(layout.evaluations)]
    same = next((run for run in asked if run.questions_sha256 == score.hashes.questions), None)
    if same is None:
        names = ", ".join(sorted({run.benchmark_name for run in asked})) or "nothing"
        raise PipelineError(
            f"{layout.root} has not asked the questions of {score.benchmark} (sha256 "
            f"{score.hashes.questions[:8]}), but {names}: evaluate a model on them first, or name "
            "its questions.json by --questions"
        )
    digest = score.hashes.answers
    key = folder_key(file.stem, digest)
    run = EvaluationRun(
        key=RunKey(model=key, benchmark=same.key.benchmark, prompt=PROMPT),
        model=ModelRef(key=key, path=str(file.absolute()), digest=f"file:{digest}"),
        role="imported",
        benchmark_name=same.benchmark_name,
        benchmark_digest=same.benchmark_digest,
        questions_sha256=same.questions_sha256,
        num_questions=same.num_questions,
        prompt=None,
        decoding=None,
        versions={},
    )
    folder = layout.evaluations / run.key.folder
    answers = [Answer(name, said.text, said.answer) for name, said in predictions.items()]
    run.write(folder / "run.json")
    write_jsonl(folder / "answers.jsonl", map(asdict, answers))
    write_verdicts(folder / "verdicts.jsonl", verdicts)
    score.write(folder / "score.json")
    unit = f"import/{key}"  # so that the report knows that something came
    manifest.commit(layout.manifest(unit), unit, {"file": digest}, [folder])
    return folder
