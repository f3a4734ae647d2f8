"""Evaluate: models answer the benchmarks in child processes, and every scorer judges the answers.

The answers are appended as they come, so that a killed run goes on where it was; scoring follows in
this process, without torch.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence

from model.config import EvaluateConfig, TrainConfig
from model.infer.jobs import InferenceJob, InferenceRun, decoding_of
from model.score.control_report import write_control_report
from model.score.scorers import judge_lines, score_folder
from storage.jsonl import Record
from storage.layout import Layout
from storage.records.evaluation import Answer, EvaluationRun, Score, read_answers
from storage.records.question import list_ids
from tasks.asked import Job, evaluate_unit, starts_of
from tasks.running.child_process import SILENCE_LIMIT_S, run_child
from tasks.running.console import RecordFile, Show, meter, say
from tasks.running.gpus import gpu_environment, hold_gpus
from tasks.stage import task


@task("answer-{part}-from-{jobs[0].asked.model.key}", goes_on=True)  # answers are kept
def answer(jobs: Sequence[Job], config: EvaluateConfig, layout: Layout, part: int) -> None:
    """Answer in one child process, on a GPU where there is one; then score each finished run.

    A child that fails leaves what it has answered; its finished runs are recorded before the
    failure is told.
    """
    elsewhere = any(job.asked.endpoint for job in jobs)
    module = "model.run_endpoint" if elsewhere else "model.run_inference"
    with (
        hold_gpus(0 if elsewhere else 1, "evaluation") as gpus,
        meter("evaluate", sum(job.benchmark.num_questions for job in jobs)) as progress,
    ):
        device = "cuda:0" if gpus else "cpu"
        runs = {job: job.run(decoding_of(config, device)) for job in jobs}
        inference = InferenceRun(
            jobs=tuple(
                InferenceJob(
                    run=run,
                    questions=job.benchmark.questions_path,
                    audio=job.benchmark.audio,
                    output=job.folder(layout),
                    endpoint=job.asked.endpoint,
                    allow_unreadable=job.benchmark.allow_unreadable,
                )
                for job, run in runs.items()
            ),
            evaluate=config,
            device=device,
            features=layout.workspace / "features",
            kept=layout.workspace / "answers",
        )
        run_path = layout.evaluations / f"run-{part}.json"
        inference.write(run_path)
        try:
            run_child(
                [sys.executable, "-m", module, str(run_path)],
                log=layout.evaluations / f"inference-{part}.log",
                on_line=_Progress(jobs, config.scorers[0], layout, progress.show),
                silence_s=SILENCE_LIMIT_S,
                env=gpu_environment(gpus),
            )
        finally:
            _record_finished(runs, config, layout)


def _record_finished(
    runs: Mapping[Job, EvaluationRun], config: EvaluateConfig, layout: Layout
) -> None:
    """Score and record every run whose questions are all answered, by this model."""
    told: set[str] = set()
    for job, run in runs.items():
        folder = job.folder(layout)
        if not (folder / "run.json").exists():
            continue
        before = EvaluationRun.read(folder / "run.json")
        answers = read_answers(folder / "answers.jsonl")
        if before.gives_answers_of(run) and len(answers) >= run.num_questions:
            run.with_notes_of(before).write(folder / "run.json")
            score_folder(folder, job.benchmark.questions, config.scorers)
            evaluate_unit(job, config, layout).commit()
            told.update(_remarks(job, answers))
    for remark in sorted(told):
        say(f"  {remark}")


def _remarks(job: Job, answers: Sequence[Answer]) -> Iterator[str]:
    """What to know of a run's answers and of the clips that were asked about."""
    name = job.benchmark.name
    if num_taken := sum(bool(answer.made_in) for answer in answers):
        yield f"{job.asked.model.key} on {name}: {num_taken} of {len(answers)} answers taken over"
    if cut := [answer.id for answer in answers if answer.cut]:
        yield f"{name}: {len(cut)} clips are longer than the model hears: {list_ids(cut)}"
    if failed := {answer.id: answer.error for answer in answers if answer.error}:
        ids, first = list_ids(list(failed)), next(iter(failed))
        yield f"{name}: {len(failed)} not asked, count as wrong: {ids}. {first}: {failed[first]}"


def describe_score(job: Job, layout: Layout) -> str:
    """One line of a finished run: its name and how many answers are right."""
    name = f"{job.asked.model.key} on {job.benchmark.name}, {job.key.folder.name}"
    folder = job.folder(layout)
    scorers = Score.read(folder / "score.json").scorers
    if not scorers:
        return f"{name}: answered; the answers are withheld, submit {folder / 'submission.json'}"
    right = [f"{counts.overall.num_correct} {scorer}" for scorer, counts in scorers.items()]
    return f"{name}: right {', '.join(right)}, of {job.benchmark.num_questions}"


def write_control_reports(
    jobs: Sequence[Job], trainings: Sequence[TrainConfig], config: EvaluateConfig, layout: Layout
) -> None:
    """Say beside the answers of each proper run among the jobs what its controls mean."""
    start_of = starts_of(trainings, layout)
    key_of = {job.asked.digests: job.asked.model.key for job in jobs}
    controlled = {job.key.proper.folder for job in jobs if job.control is not None}
    for job in jobs:
        if job.key.folder in controlled:
            made = job.asked.model.training if job.asked.role == "checkpoint" else None
            start = start_of[made.name][0] if made else job.asked.model.digest
            write_control_report(
                layout.evaluations,
                job.key,
                job.benchmark.questions,
                scorers=config.scorers,
                start=key_of.get((start, job.asked.prompt.sha256)),
            )


class _Progress:
    """Shows how many questions are answered, over all of a child's runs, as the answers come.

    Beside the count stands the last run's accuracy so far, by task.
    """

    def __init__(self, jobs: Sequence[Job], scorer: str, layout: Layout, show: Show) -> None:
        self._answers = {job: RecordFile(job.folder(layout) / "answers.jsonl") for job in jobs}
        self._right: dict[Job, dict[str, list[bool]]] = {job: {} for job in jobs}
        self._scorer = scorer
        self._show = show

    def __call__(self, _line: str) -> None:
        """The child has said something: look how far it is."""
        for job, answers in self._answers.items():
            if records := answers.look():
                shares = self._judge(job, records)
                done = sum(each.num_lines for each in self._answers.values())
                self._show(done, " ".join([job.asked.model.key, *shares]))

    def _judge(self, job: Job, lines: Sequence[Record]) -> list[str]:
        """E.g. `sound 61.2`, percent right so far; nothing where the answers are withheld."""
        right = self._right[job]
        for question, verdict in judge_lines(job.benchmark.questions, job.control, lines):
            if (mark := verdict.of(self._scorer)) is not None:
                right.setdefault(question.task, []).append(mark)
        return [f"{task} {100 * sum(marks) / len(marks):.1f}" for task, marks in right.items()]
