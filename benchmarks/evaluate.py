"""What evaluation costs: questions a second, ours against the plain loop.

`python -m benchmarks.evaluate [--size tiny|medium] [--questions 128] [--models 2] [--json]`; no
network, no GPU needed. The plain loop is what R1-AQA's published run does: batches of 32 in file
order, features on the main thread padded to the extractor's 30 s, `generate` with the whole
encoder, once for every checkpoint. Ours runs as by default: batches of 16, the parity check, and
one process that computes features. Both decode greedily in fp32 and must give the same completions.
Clips are 2 to 30 s long, their median is 10 s, as in MMAU; the weights are random, so a completion
runs to the limit of 10 tokens, which is about what an answer in its tag takes.

`--whole` asks two versions of the benchmark, of which two thirds of the questions are alike as in
MMAU's (655 of 1,000), and each again with silence; the plain loop asks everything.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import soundfile
import torch
from transformers import PreTrainedModel, ProcessorMixin, Qwen2AudioForConditionalGeneration

from model.config import EvaluateConfig
from model.infer.jobs import InferenceJob, InferenceRun, decoding_of, installed_versions
from model.network.loading import load_processor
from model.network.tiny import build_tiny
from model.prompt import PROMPTS
from model.run_inference import infer
from model.score.controls import SILENCE_S
from storage.audio import read_audio, silence
from storage.benchmarks.parse import write_questions
from storage.jsonl import read_json, read_jsonl
from storage.manifest import file_digest
from storage.records.evaluation import EvaluationRun, RunKey
from storage.records.model import ModelRef
from storage.records.question import Question

MAX_NEW_TOKENS = 10
PLAIN_BATCH_SIZE = 32  # of R1-AQA's published run
WORDS = ("dog", "rain", "bell", "horn", "wind", "piano", "drum", "speech")


class Asking(NamedTuple):
    """One way of asking a benchmark."""

    name: str
    """Of its file."""
    questions: Sequence[Question]
    control: str | None = None

    @property
    def folder(self) -> str:
        """Of its answers, inside a model's."""
        return f"{self.name}+{self.control or 'clips'}"


class Measured(NamedTuple):
    """One way of answering all questions with all models."""

    seconds: float
    completions: list[dict[str, str]]
    """By folder and question id, one object a model."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--size", choices=["tiny", "medium"], action="append")
    parser.add_argument("--questions", type=int, default=128)
    parser.add_argument("--models", type=int, default=2, help="checkpoints asked the same")
    parser.add_argument("--whole", action="store_true", help="two versions, each with silence too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes that compute features")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    numbers: dict[str, float] = {}
    for size in options.size or ["tiny", "medium"]:
        with tempfile.TemporaryDirectory() as temporary:
            root = Path(temporary)
            numbers |= compare(
                root,
                size,
                num_questions=options.questions,
                num_models=options.models,
                workers=options.workers,
                whole=options.whole,
            )
    if options.json:
        print(json.dumps(numbers))


def compare(
    root: Path,
    size: Literal["tiny", "medium"],
    *,
    num_questions: int,
    num_models: int,
    workers: int,
    whole: bool = False,
) -> dict[str, float]:
    """Answer both ways and compare."""
    questions = make_questions(root, num_questions)
    asked = [Asking("questions", questions)]
    if whole:
        asked.append(Asking("other", reworded(root, questions)))
        asked += [Asking(version.name, version.questions, "silence") for version in asked]
    texts = [text for question in questions for text in (question.question, *question.choices)]
    models = [
        build_tiny(root / f"model-{seed}", texts, clip_length_s=30, seed=seed, size=size)
        for seed in range(num_models)
    ]
    warm_up(root, models[0], questions)
    cpu_s = [sum(os.times()[:4])]  # with the processes that read ahead, and all loading
    plain = answer_plainly(root, models, asked)
    cpu_s.append(sum(os.times()[:4]))
    ours = answer_with_ours(root, models, asked, workers=workers)
    cpu_s.append(sum(os.times()[:4]))
    cpu_speedup = (cpu_s[1] - cpu_s[0]) / (cpu_s[2] - cpu_s[1])
    pairs = list(zip(plain.completions, ours.completions, strict=True))
    assert all(one.keys() == other.keys() for one, other in pairs)
    num_other = sum(one[name] != other[name] for one, other in pairs for name in one)
    answered = num_questions * num_models * len(asked)
    plain_rate, our_rate = answered / plain.seconds, answered / ours.seconds
    print(
        f"{size}: {num_questions} questions x {num_models} models x {len(asked)}: plain loop "
        f"{plain_rate:.2f} questions/s, ours {our_rate:.2f}, {our_rate / plain_rate:.1f} x "
        f"(CPU seconds {cpu_speedup:.1f} x); {num_other} completions differ"
    )
    assert num_other == 0, "both ways must give the same completions"
    return {
        f"{size}_plain_questions_per_s": round(plain_rate, 3),
        f"{size}_questions_per_s": round(our_rate, 3),
        f"{size}_speedup": round(our_rate / plain_rate, 2),
        f"{size}_speedup_in_cpu_seconds": round(cpu_speedup, 2),
        f"{size}_completions_that_differ": num_other,
    }


def warm_up(root: Path, model: Path, questions: Sequence[Question]) -> None:
    """The first matrix product sets things up: no way's time should hold that."""
    run = run_of(root, [model], [Asking("questions", questions)], "warm-up", workers=0)
    (job,) = run.jobs
    few = root / "warm-up.json"
    write_questions(few, questions[:2])
    about = job.run.model_copy(update={"questions_sha256": file_digest(few), "num_questions": 2})
    job = job.model_copy(update={"questions": few, "run": about})
    infer(run.model_copy(update={"jobs": [job]}))


def make_questions(root: Path, number: int) -> list[Question]:
    """Questions over noise of 2 to 30 s; the lengths' median is 10 s."""
    generator = np.random.default_rng(0)
    (root / "audio").mkdir()
    questions: list[Question] = []
    for index in range(number):
        seconds = float(np.clip(generator.lognormal(np.log(10), 0.5), 2, 30))
        noise = 0.1 * generator.standard_normal(round(seconds * 16_000))
        soundfile.write(root / f"audio/q{index}.wav", noise, 16_000)
        choices = tuple(str(word) for word in generator.permutation(WORDS)[:4])
        questions.append(
            Question(
                id=f"q{index}",
                clips=(f"q{index}.wav",),
                question="What is heard" + " in the background" * int(generator.integers(4)) + "?",
                choices=choices,
                answer=choices[0],
                task="sound",
                category="",
                sub_category="",
                difficulty="",
                dataset="",
                split="",
            )
        )
    write_questions(root / "questions.json", questions)
    return questions


def reworded(root: Path, questions: Sequence[Question]) -> list[Question]:
    """Another version of the benchmark: every third question is put otherwise."""
    other = [
        replace(question, question=f"Now: {question.question}") if index % 3 == 0 else question
        for index, question in enumerate(questions)
    ]
    write_questions(root / "other.json", other)
    return other


def run_of(
    root: Path, models: Sequence[Path], asked: Sequence[Asking], name: str, *, workers: int
) -> InferenceRun:
    """Every model on all questions."""
    config = EvaluateConfig(max_new_tokens=MAX_NEW_TOKENS, workers=workers)
    jobs = [
        InferenceJob(
            run=EvaluationRun(
                key=RunKey(
                    model=model.name, benchmark=one.name, prompt="answer", control=one.control
                ),
                model=ModelRef(key=model.name, path=str(model), digest=model.name),
                role="other",
                benchmark_name="noise",
                benchmark_digest="",
                questions_sha256=file_digest(root / f"{one.name}.json"),
                num_questions=len(one.questions),
                prompt=PROMPTS["answer"],
                decoding=decoding_of(config, "cpu"),
                versions=installed_versions(),
            ),
            questions=root / f"{one.name}.json",
            audio=root / "audio",
            output=root / name / model.name / one.folder,
        )
        for model in models
        for one in asked
    ]
    folder = root / name
    return InferenceRun(
        jobs=tuple(jobs), evaluate=config, device="cpu", features=folder, kept=folder / "kept"
    )


def answer_with_ours(
    root: Path, models: Sequence[Path], asked: Sequence[Asking], *, workers: int
) -> Measured:
    """As evaluation does it; a job's time runs from its first prompt, without loading weights."""
    infer(run_of(root, models, asked, "ours", workers=workers))
    completions: list[dict[str, str]] = []
    seconds = 0.0
    for model in models:
        folders = {one.folder: root / "ours" / model.name / one.folder for one in asked}
        seconds += sum(read_json(folder / "run.json")["seconds"] for folder in folders.values())
        completions.append(
            {
                f"{one} {line['id']}": line["completion"]
                for one, folder in folders.items()
                for line in read_jsonl(folder / "answers.jsonl")
            }
        )
    return Measured(seconds, completions)


@torch.no_grad()
def answer_plainly(root: Path, models: Sequence[Path], asked: Sequence[Asking]) -> Measured:
    """As src/test_mmau.py of R1-AQA does it, but for greedy decoding and the mix-down."""
    completions: list[dict[str, str]] = []
    seconds = 0.0
    for path in models:
        processor = load_processor(path)
        model = Qwen2AudioForConditionalGeneration.from_pretrained(path).eval()
        answers: dict[str, str] = {}
        started_s = time.perf_counter()
        for one in asked:
            audio = None if one.control else root / "audio"
            for start in range(0, len(one.questions), PLAIN_BATCH_SIZE):
                batch = one.questions[start : start + PLAIN_BATCH_SIZE]
                found = complete_plainly(model, processor, audio, batch)
                answers |= {f"{one.folder} {name}": text for name, text in found.items()}
        seconds += time.perf_counter() - started_s
        completions.append(answers)
    return Measured(seconds, completions)


@torch.no_grad()
def complete_plainly(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    audio: Path | None,
    questions: Sequence[Question],
) -> dict[str, str]:
    """One batch by transformers' generate, over silence without clips; completions by id."""
    network, put = cast("Any", model), cast("Any", processor)
    texts = [
        put.apply_chat_template(
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "audio", "audio_url": ""},
                        {
                            "type": "text",
                            "text": PROMPTS["answer"].fill(q.question, q.choices),
                        },
                    ],
                }
            ],
            add_generation_prompt=True,
            tokenize=False,
        )
        for q in questions
    ]
    inputs = put(
        text=texts,
        audio=[read_audio(audio / q.clips[0]) if audio else silence(SILENCE_S) for q in questions],
        sampling_rate=16_000,
        return_tensors="pt",
        padding=True,
    ).to(model.device)
    inputs["input_features"] = inputs["input_features"].to(model.dtype)
    generated = network.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
    tokens = generated[:, inputs["input_ids"].shape[1] :]
    decoded = put.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return {q.id: text for q, text in zip(questions, decoded, strict=True)}


if __name__ == "__main__":
    main()
