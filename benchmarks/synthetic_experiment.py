"""Writes the folders of an experiment that never ran, of any size: made answers to made questions.

For measuring and testing the report alone. Accuracies rise with the step by a rule, so that charts
look like charts; nothing here was measured.
"""

import csv
import hashlib
import random
import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from model.prompt import PROMPTS
from storage.jsonl import read_json, write_bytes, write_json, write_jsonl, write_text
from storage.layout import Layout
from storage.manifest import file_digest
from storage.records.evaluation import (
    Answer,
    ControlReport,
    Counts,
    Decoding,
    EvaluationRun,
    Hashes,
    OrderConsistency,
    RunKey,
    Score,
    Tally,
    Verdict,
    list_runs,
    read_verdicts,
    write_verdicts,
)
from storage.records.model import ModelRef, TrainingRef, checkpoint_key
from storage.records.training import RUN, TrainingRecord

TASKS = ("sound", "music", "speech")
SUB_CATEGORIES = {
    "sound": (
        "Acoustic Source Inference",
        "Temporal Event Reasoning",
        "Ambient Sound Interpretation",
    ),
    "music": ("Instrumentation", "Rhythm and Tempo Understanding", "Lyrical Reasoning"),
    "speech": (
        "Emotion State summarisation",
        "Key highlight Extraction",
        "Conversational Fact Retrieval",
    ),
}
SEED = 42  # of trainings whose settings name none
DIFFICULTIES = ("easy", "medium", "hard")
START_ACCURACY = {"sound": 0.55, "music": 0.51, "speech": 0.42}
THOUGHT = "A steady tone opens the clip, then a second voice enters; its timbre decides. "

Json = dict[str, Any]


def write_experiment(  # noqa: PLR0913  the tests vary each of them alone
    workspace: Path,
    *,
    num_questions: int = 60,
    steps: Sequence[int] = (10, 20, 30),
    benchmarks: Sequence[str] = ("demo-mmau",),
    trainings: Sequence[str] = ("grpo",),
    with_fetch: bool = True,
    with_curves: bool = True,
    with_audio: bool = False,
    with_controls: bool = False,
    num_thoughts: int = 0,
    start_models: Sequence[str] = ("tiny",),
    settings: Mapping[str, Json] | None = None,
) -> tuple[Layout, Json]:
    """Write everything that the report reads.

    Args:
        workspace: Where to.
        num_questions: Of each benchmark.
        steps: Evaluated steps of each training.
        benchmarks: Their names; `validation` is the held-out examples.
        trainings: Their names; the method is what stands before the first `-`.
        with_fetch: Whether the clips' account is there.
        with_curves: Whether trainings logged metrics.
        with_audio: Whether the questions have clips, and two of the usable training clips theirs.
        with_controls: Whether the silence control was run on start models and the last steps.
        num_thoughts: Sentences of thinking before each answer.
        start_models: Evaluated models that were not trained here.
        settings: What the profile says of a training beyond its name and method, by training; one
            that names no `model` started from the first start model.

    Returns:
        The layout and the profile as JSON.
    """
    layout = Layout(workspace, "demo")
    entries = [_entry(name, start_models[0], settings or {}) for name in trainings]
    for benchmark in benchmarks:
        questions = make_questions(num_questions)
        write_json(layout.benchmark(benchmark) / "questions.json", questions)
        if with_audio:
            names = (question["audio_id"] for question in questions)
            _write_audio(layout.benchmark(benchmark) / "audio", names)
        for asked in _asked(start_models, entries, steps, with_controls=with_controls):
            gain = 0.0 if asked.step is None else 0.28 * asked.step / (asked.step + max(steps) / 4)
            gain *= 0.5 if asked.entry and asked.entry["method"] == "sft" else 1.0
            run = _run(layout, benchmark, num_questions, asked)
            _write_evaluation(layout, questions, run, gain=gain, num_thoughts=num_thoughts)
            if asked.control and asked.entry:
                _write_control_report(layout, run.key.proper, num_questions)
    for entry in entries:
        _training_record(entry, steps[-1]).write(layout.training(entry["name"]) / RUN)
        if with_curves:
            write_jsonl(layout.training(entry["name"]) / "metrics.jsonl", _metrics(max(steps)))
    if with_fetch:
        _write_fetch(layout)
        if with_audio:
            _write_audio(layout.clips, ("kept0000000_30.wav", "kept0000004_30.wav"))
    return layout, {
        "experiment": "demo",
        "train": entries,
        "evaluate": {
            "benchmarks": [{"name": name} for name in benchmarks],
            "scorers": ["official", "strict"],
            "declared_step": None,
        },
        "report": {"published": True},
    }


class _Asked(NamedTuple):
    key: str
    entry: Json | None
    step: int | None
    prompt: str
    control: str | None = None


def _asked(
    start_models: Sequence[str],
    entries: Sequence[Json],
    steps: Sequence[int],
    *,
    with_controls: bool,
) -> list[_Asked]:
    """Start models as their trainings ask, then each training's checkpoints, then controls."""
    found: list[_Asked] = []
    for key in start_models:
        prompts = [entry["prompt"] for entry in entries if entry["model"] == f"models/{key}"]
        found += [
            _Asked(key, None, None, prompt) for prompt in dict.fromkeys(prompts or ["answer"])
        ]
    for entry in entries:
        keys = {checkpoint_key(entry["name"], step): step for step in steps}
        found += [_Asked(key, entry, step, entry["prompt"]) for key, step in keys.items()]
    if with_controls:
        last = checkpoint_key(entries[0]["name"], steps[-1])
        proper = [asked for asked in found if asked.key in {start_models[0], last}]
        found += [asked._replace(control="silence") for asked in proper]
    return found


def _entry(name: str, start_model: str, settings: Mapping[str, Json]) -> Json:
    """A training of the profile."""
    usual = {"model": f"models/{start_model}", "prompt": "answer"}
    return {"name": name, "method": name.partition("-")[0]} | usual | settings.get(name, {})


def _training_record(entry: Json, last_step: int) -> TrainingRecord:
    """What a training records of what it started from: a model, or a training's last step."""
    start = str(entry["model"])
    earlier = start.removeprefix("training:")
    key = start.rpartition("/")[2] if earlier == start else checkpoint_key(earlier, last_step)
    return TrainingRecord(
        name=entry["name"],
        method=entry["method"],
        variant="lora" if entry.get("lora") else "full",
        prompt=entry["prompt"],
        seed=entry.get("seed", SEED),
        start=_model(key),
        examples=Path("train.jsonl"),
        examples_sha256=_digest("examples"),
        num_examples=185,
        num_devices=1,
        settings={},
        idle={},
        versions={"torch": "2.13.0"},
    )


def make_questions(num_questions: int) -> list[Json]:
    """Questions in MMAU's schema, every 40th with two choices and every 45th with eight."""
    generator = random.Random(0)
    questions: list[Json] = []
    for index in range(num_questions):
        task = TASKS[index % 3]
        size = 2 if index % 40 == 7 else 8 if index % 45 == 11 else 4
        choices = [
            f"{task} {word} {index % 17}"
            for word in ("bell", "rain", "horn", "dog", "wind", "piano", "clap", "train")
        ][:size]
        questions.append(
            {
                "id": hashlib.sha256(f"question {index}".encode()).hexdigest()[:32],
                "audio_id": f"./test-mini-audios/{index:04d}.wav",
                "question": f"In the given audio, which {task} is heard first in clip {index}?",
                "choices": choices,
                "answer": generator.choice(choices),
                "dataset": "synthetic",
                "task": task,
                "split": "test-mini",
                "category": "Reasoning",
                "sub-category": generator.choice(SUB_CATEGORIES[task]),
                "difficulty": generator.choice(DIFFICULTIES),
            }
        )
    return questions


def _write_evaluation(
    layout: Layout,
    questions: Sequence[Json],
    run: EvaluationRun,
    *,
    gain: float,
    num_thoughts: int,
) -> None:
    folder = layout.evaluations / run.key.folder
    answers: list[Answer] = []
    verdicts: list[Verdict] = []
    for question in questions:
        who = run.key.model + run.key.prompt.removeprefix("answer")
        right, text, parsed = _made_answer(question, who, gain=-0.25 if run.key.control else gain)
        thought = f"<think>{THOUGHT * num_thoughts}</think>" if num_thoughts else ""
        completion = thought + (f"<answer>{text}</answer>" if parsed else text)
        answers.append(Answer(question["id"], completion, text, num_tokens=9))
        reason = (
            "equals the answer"
            if right
            else "another choice"
            if parsed
            else "no answer tag; the whole text was taken"
        )
        index = question["choices"].index(text) if parsed else None
        verdicts.append(Verdict(question["id"], text, index, right, right and parsed, reason))
    write_jsonl(folder / "answers.jsonl", map(asdict, answers))
    write_verdicts(folder / "verdicts.jsonl", verdicts)
    run.write(folder / "run.json")
    _score(run, verdicts).write(folder / "score.json")


def _score(run: EvaluationRun, verdicts: Sequence[Verdict]) -> Score:
    scorers = ("official", "strict") if verdicts[0].official is not None else ()
    return Score(
        benchmark=run.benchmark_name,
        scorers={
            name: Counts(
                overall=Tally(sum(each.of(name) is True for each in verdicts), len(verdicts)),
                groups={},
            )
            for name in scorers
        },
        num_questions=len(verdicts),
        num_unparsed=sum(not verdict.parsed for verdict in verdicts),
        hashes=Hashes(questions=run.questions_sha256, answers=_digest("answers")),
    )


def _write_control_report(layout: Layout, proper: RunKey, num_questions: int) -> None:
    """What evaluation writes beside the control runs."""
    counted = Tally(num_questions // 4, num_questions // 2)
    report = ControlReport(
        key=proper,
        contribution={},
        needs_audio={"official": counted, "strict": counted},
        order=OrderConsistency(
            num_consistent=num_questions // 2,
            num_right_in_all=num_questions // 3,
            num_questions=num_questions,
            num_orders=4,
        ),
    )
    report.write(layout.evaluations / proper.folder / "controls.json")


def _made_answer(question: Json, key: str, *, gain: float) -> tuple[bool, str, bool]:
    """Whether the answer is right, its text, and whether it could be parsed."""
    ability = random.Random(question["id"]).random()
    noise = random.Random(question["id"] + key)
    right = 0.8 * ability + 0.2 * noise.random() < START_ACCURACY[question["task"]] + gain
    wrong = [choice for choice in question["choices"] if choice != question["answer"]]
    text = question["answer"] if right else noise.choice(wrong)
    return right, text, noise.random() > 0.02


def _run(layout: Layout, benchmark: str, num_questions: int, asked: _Asked) -> EvaluationRun:
    key, entry, step, prompt, control = asked
    ref = None
    if entry and step:
        ref = TrainingRef(name=entry["name"], seed=entry.get("seed", SEED), step=step)
    return EvaluationRun(
        key=RunKey(model=key, benchmark=benchmark, prompt=prompt, control=control),
        model=_model(key, ref),
        role="checkpoint" if entry else "start",
        method=entry["method"] if entry else None,
        variant=("lora" if entry.get("lora") else "full") if entry else None,
        benchmark_name=benchmark,
        benchmark_digest=_digest(benchmark),
        questions_sha256=file_digest(layout.benchmark(benchmark) / "questions.json"),
        num_questions=num_questions,
        prompt=PROMPTS[prompt],
        decoding=Decoding(max_new_tokens=256, batch_size=16, precision="bf16"),
        versions={"torch": "2.13.0", "transformers": "5.23.0"},
        seconds=12.5,
    )


def _model(key: str, ref: TrainingRef | None = None) -> ModelRef:
    return ModelRef(key=key, path=f"models/{key}", digest=_digest(key), training=ref)


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _metrics(num_steps: int) -> list[Json]:
    generator = random.Random(1)
    return [
        {
            "step": step,
            "loss": 0.002 * generator.random(),
            "reward": 0.4 + 1.4 * step / (step + num_steps / 5) + generator.gauss(0, 0.08),
            "accuracy_reward": 0.3 + 0.5 * step / (step + num_steps / 5),
            "format_reward": min(1.0, 0.1 + 0.9 * step / (step + num_steps / 30)),
            "zero_variance_share": 0.2 + 0.5 * step / (step + num_steps / 3),
            "kl": 0.5 * step / num_steps + abs(generator.gauss(0, 0.05)),
            "completion_length": 9 + generator.gauss(0, 0.5),
            "grad_norm": abs(generator.gauss(1, 0.2)),
            "learning_rate": 1e-6 * (1 - step / num_steps),
            "seconds": {"rollout": 1.0, "update": 0.5, "total": 1.5},
        }
        for step in range(1, num_steps + 1)
    ]


def _write_fetch(layout: Layout) -> None:
    reasons = Counter(
        {
            ("invalid", "private"): 7,
            ("invalid", "removed"): 5,
            ("geo", "blocked in this country"): 2,
            ("invalid", "no audio track"): 1,
        }
    )
    requested = 200
    usable = requested - reasons.total()
    by_reason = [
        {"state": state, "reason": reason, "count": count}
        for (state, reason), count in reasons.most_common()
    ]
    losses = [
        {
            "clip_id": f"lost{index:07d}_000030",
            "state": state,
            "reason": reason,
            "message": f"ERROR: [youtube] the source says: {reason}",
            "last_try": f"2026-11-{20 + index % 3}T10:00:00Z",
        }
        for index, (state, reason) in enumerate(reasons.elements())
    ]
    account = {
        "requested": requested,
        "usable": usable,
        "by_state": {"done": usable, "invalid": 13, "geo": 2},
        "by_reason": by_reason,
        "silent": 1,
        "short": 4,
        "versions": {"yt-dlp": "2026.10.26"},
        "videos_per_hour": 240,
        "started": "2026-11-20T10:00:00Z",
        "finished": "2026-11-22T10:00:00Z",
    }
    write_json(layout.fetch / "fetch_report.json", account)
    write_jsonl(layout.fetch / "invalid.jsonl", losses)
    layout.fetch.mkdir(parents=True, exist_ok=True)
    with (layout.fetch / "clips.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip_id", "state", "reason", "source", *("silent", "short", "cancelled")])
        writer.writerows(
            [
                f"kept{index:07d}_000030",
                *("done", "", "folder" if index % 5 == 3 else "youtube"),
                *(int(index == 4), int(index % 60 == 4), 0),
            ]
            for index in range(usable)
        )
        writer.writerows(
            [loss["clip_id"], loss["state"], loss["reason"], "", 0, 0, 0] for loss in losses
        )
    kinds = ("Happening", "Come From", "Where", "Which")
    write_jsonl(
        layout.train_jsonl,
        [
            {"id": index, "question_type": kinds[index % 4], "question_relation": "Both"}
            for index in range(usable)
        ],
    )
    dropped = [
        {
            "id": usable + index,
            "video_name": loss["clip_id"],
            "reason": loss["reason"],
            "detail": "",
        }
        for index, loss in enumerate(losses)
    ]
    write_jsonl(layout.dropped_jsonl, dropped)


def _write_audio(folder: Path, names: Iterable[str]) -> None:
    """Twelve seconds of a quiet tone under each name, mono PCM16 at 8 kHz."""
    samples = b"".join(
        struct.pack("<h", 2000 if index % 40 < 20 else -2000) for index in range(12 * 8000)
    )
    head = (
        b"RIFF"
        + struct.pack("<I", 36 + len(samples))
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    )
    content = head + b"data" + struct.pack("<I", len(samples)) + samples
    for name in names:
        write_bytes(folder / name, content)


def withhold_answers(layout: Layout, benchmark: str) -> None:
    """Turn a benchmark into one like MMAU's test split: no answers, no verdicts, no scores."""
    path = layout.benchmark(benchmark) / "questions.json"
    write_json(path, [{**row, "answer": None} for row in read_json(path)])
    for stored in list_runs(layout.evaluations):
        if stored.run.key.benchmark != benchmark:
            continue
        verdicts = read_verdicts(stored.folder / "verdicts.jsonl")
        blank = [replace(verdict, official=None, strict=None) for verdict in verdicts]
        write_verdicts(stored.folder / "verdicts.jsonl", blank)
        run = stored.run.model_copy(update={"questions_sha256": file_digest(path)})
        run.write(stored.folder / "run.json")
        _score(run, blank).write(stored.folder / "score.json")


def write_published_rows(path: Path, benchmark: str) -> None:
    """A user's own file of rows for a benchmark."""
    lines = [
        "benchmark,version,model,method,sound,music,speech,average,source,date,note",
        f"{benchmark},,A model of theirs,direct,50.00,51.00,52.00,51.00,Their paper,2026-01,",
    ]
    write_text(path, "\n".join(lines) + "\n")
