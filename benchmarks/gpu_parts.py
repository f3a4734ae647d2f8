"""The parts of benchmarks/gpu.py, each a process of its own: `python -m benchmarks.gpu_parts NAME`.

A part prints each number as soon as it has it, as a line of JSON. What a later part needs of an
earlier one (the random model's folder) it makes by itself where it is missing. Random weights never
answer well, but work and memory are those of real ones; no completion of theirs ends early.

Without a GPU a part runs on the tiny model and says so by its `size`; memory is then that of the
process.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks import grpo_step
from benchmarks.evaluate import complete_plainly, make_questions
from flows.pipeline_config import load_config
from model.config import DecodeWay, TrainConfig
from model.infer.decoder import Decoder
from model.infer.jobs import Item
from model.infer.prompts import Reader
from model.network.features import Batch, Prompt, collate, take
from model.network.loading import load_model, load_processor
from model.network.measure import measure
from model.network.packed import prefill
from model.network.sampling import Completions, Sampling, decode, uniform_numbers
from model.network.tiny import build_tiny
from model.prompt import PROMPTS
from model.train.estimates import FORWARD_AND_BACKWARD, estimate, operations, peak_operations_per_s
from model.training_record import training_record
from storage.errors import PipelineError
from storage.jsonl import read_jsonl
from storage.records.model import ModelRef
from storage.records.sizes import ModelSizes

GB = 1e9
BYTES_PER_S = {"H200": 4.8e12, "H100": 3.35e12, "A100": 2.0e12}  # of memory, makers' data sheets
STEPS = 3  # of a training; the first one warms up
PROMPTS_PER_STEP = 8  # 16 would take the whole time
TEXTS = [grpo_step.QUESTION]
TWO_PROCESSES = """
import os, sys, torch
import torch.distributed as dist
dist.init_process_group(sys.argv[1])
device = "cuda:0" if torch.cuda.is_available() else "cpu"
number = torch.tensor([float(dist.get_rank() + 1)], device=device)
dist.all_reduce(number)
assert number.item() == 3, number
dist.destroy_process_group()
"""


def main() -> int:
    """Run one part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=list(PARTS))
    parser.add_argument("--scratch", type=Path, required=True, help="folder for models and runs")
    parser.add_argument("--size", choices=["7b", "tiny"])
    options = parser.parse_args()
    size = options.size or ("7b" if torch.cuda.is_available() else "tiny")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    if size == "tiny":  # on busy cores threads wait for each other
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)
    say(size=size, device=device, torch=torch.__version__)
    return PARTS[options.name](options.scratch, size) or 0


def say(**numbers: object) -> None:
    """One line of results."""
    print(json.dumps(numbers), flush=True)


def run_tests(scratch: Path, size: str) -> int:
    """What only a GPU can show: `pytest -m gpu`; without one, that there is something to run."""
    del size
    here = torch.cuda.is_available()
    what = ["-m", "gpu", *([] if here else ["--collect-only"])]
    command = [sys.executable, "-m", "pytest", "-v", "--durations=5", "-p", "no:cacheprovider"]
    files = sorted(Path("tests/model").rglob("test_*.py"))
    marked = [str(path) for path in files if "mark.gpu" in path.read_text()]
    command += [*what, f"--basetemp={scratch / 'tests'}", *marked]
    return subprocess.run(command, check=False).returncode


def run_step(num_tokens: int) -> Callable[[Path, str], None]:
    """A step of one prompt, packed and then naive, with memory, tokens a second and MFU."""

    def run(scratch: Path, size: str) -> None:
        del scratch
        setup = grpo_step.make_setup(size, num_tokens if size == "7b" else min(num_tokens, 24))
        for name, step in (("packed", grpo_step.packed_step), ("naive", grpo_step.naive_step)):
            for checkpointing in (False, True) if name == "naive" else (False,):
                if checkpointing:  # made to fit
                    setup.policy.gradient_checkpointing_enable()
                try:
                    runs = [step(setup, seed=turn) for turn in range(3 if size == "7b" else 2)][1:]
                except torch.OutOfMemoryError as error:
                    reason = str(error).partition(". ")[0]
                    say(step=name, tokens=num_tokens, checkpointing=checkpointing, failed=reason)
                    setup.policy.zero_grad(set_to_none=True)
                    continue
                tell_step(setup, name, runs, checkpointing=checkpointing)
                break
        count_launches("packed step", lambda: grpo_step.packed_step(setup, seed=9))

    return run


def tell_step(
    setup: grpo_step.Setup, name: str, runs: list[grpo_step.Measured], *, checkpointing: bool
) -> None:
    """Seconds by phase of the faster run, memory, and what of the card's speed that is."""
    best = min(runs, key=lambda run: sum(run.seconds.values()))
    total_s = sum(best.seconds.values())
    predicted = grpo_step.GROUP_SIZE * setup.num_tokens
    passes_s = total_s - best.seconds["rollout"]
    needed = operations(
        measure(setup.policy),
        TrainConfig(),
        text_tokens=setup.prompts["prompt_ids"].numel() + predicted,
        predicted_tokens=predicted,
        encoder_positions=float(setup.prompts["num_frames"].sum()) / 2,
    )
    peak = peak_operations_per_s(device_name())
    of_passes = needed * (1 + FORWARD_AND_BACKWARD) / (2 + FORWARD_AND_BACKWARD)
    say(
        step=name,
        tokens=setup.num_tokens,
        checkpointing=checkpointing,
        seconds={phase: round(value, 4) for phase, value in best.seconds.items()},
        total_s=round(total_s, 4),
        added_gb=round(best.added_bytes / GB, 2),
        peak_gb=round(torch.cuda.max_memory_allocated() / GB, 2) if peak else None,
        completion_tokens_per_s=round(predicted / total_s, 1),
        mfu=round(needed / total_s / peak, 4) if peak else None,
        mfu_of_passes=round(of_passes / passes_s / peak, 4) if peak else None,
    )


def count_launches(what: str, run: Callable[[], object]) -> None:
    """Operations, kernel launches, plays of graphs and waits of a run, by the profiler."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        run()
    counts = {event.key: event.count for event in profile.key_averages()}
    say(
        counted=what,
        operations=sum(n for key, n in counts.items() if key.startswith("aten::")),
        launches=sum(n for key, n in counts.items() if "LaunchKernel" in key),
        graphs_played=sum(n for key, n in counts.items() if "GraphLaunch" in key),
        synchronisations=sum(n for key, n in counts.items() if "Synchronize" in key),
        numbers_asked_for=counts.get("aten::_local_scalar_dense", 0),
    )


def run_training(profile: str, way: DecodeWay = "eager") -> Callable[[Path, str], None]:
    """Some steps of a profile's training by its own command: peak memory against the estimate."""

    def run(scratch: Path, size: str) -> None:
        model = model_folder(scratch, size)
        output = scratch / f"{profile}-{way}"
        config = load_config(profile, workspace=scratch).train[0]
        changes: dict[str, Any] = {
            "prompts_per_step": PROMPTS_PER_STEP if size == "7b" else 2,
            "decode": way,
            "dataloader_workers": 0,
            "max_steps": 1000,
            "save_steps": 1000,  # it is ended before: two checkpoints would be 50 GB
        }
        if size == "tiny":
            short = {"max_completion_tokens": 8, "group_size": 4}
            changes["grpo"] = config.grpo.model_copy(update=short)
        config = config.model_copy(update=changes)
        if size == "7b":
            sizes = measure_folder(model)
            say(profile=profile, estimate=estimate(config, sizes).text())
        for metrics in watch_training(config, model, output, steps=STEPS if size == "7b" else 2):
            say(profile=profile, **{name: metrics.get(name) for name in SHOWN})

    return run


SHOWN = ("step", "seconds", "tokens_per_second", "mfu", "peak_memory_bytes", "completion_length")


def watch_training(
    config: TrainConfig, model: Path, output: Path, *, steps: int
) -> Iterator[dict[str, Any]]:
    """Start a training and give the metrics of its first steps; then it is ended."""
    lines = made_lines(output.parent / "data")
    record = training_record(
        config,
        start=ModelRef(key="random", path=str(model), digest=""),
        examples=lines,
        num_examples=len(lines.read_text(encoding="utf-8").splitlines()),
    )
    output.mkdir(parents=True, exist_ok=True)
    record.write(output / "run.json")
    command = [sys.executable, "-m", "model.run_training", str(output / "run.json")]
    given = 0
    # The 8-bit optimiser compiles itself, which takes minutes on a CPU and changes no rule.
    eager = {} if torch.cuda.is_available() else {"TORCHDYNAMO_DISABLE": "1"}
    with subprocess.Popen(command, env=os.environ | eager) as child:
        while given < steps:
            ended = child.poll() is not None
            rows = rows_of(output)
            yield from rows[given:steps]
            given = min(len(rows), steps)
            if ended and given < steps:
                msg = f"the training ended with exit code {child.returncode} after {given} steps"
                raise RuntimeError(msg)
            time.sleep(0.2)
        child.kill()


def rows_of(output: Path) -> list[dict[str, Any]]:
    """metrics.jsonl as far as it is written; a line under way is left for later."""
    try:
        return [dict(row) for row in read_jsonl(output / "metrics.jsonl")]
    except PipelineError:  # not there yet, or a line is under way
        return []


def made_lines(folder: Path) -> Path:
    """train.jsonl of 32 clips of noise, 10 s each."""
    path = folder / "train.jsonl"
    if path.exists():
        return path
    folder.mkdir(parents=True)
    questions = make_questions(folder, 32)
    rows = [
        {
            "id": number,
            "video_name": f"clip{number:08d}_{number:06d}",
            "video_id": number,
            "question_text": "What is the source of the sound in the video?",
            "multi_choice": list(question.choices),
            "answer": 0,
            "question_relation": "Sound",
            "question_type": "Come From",
            "dataset_name": "AVQA",
            "audio_path": str(folder / "audio" / question.clips[0]),
        }
        for number, question in enumerate(questions)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def model_folder(scratch: Path, size: str) -> Path:
    """The random model with its processor, made by the first part that wants it."""
    folder = scratch / f"model-{size}"
    if (folder / "whole").exists():
        return folder
    started_s = time.monotonic()
    if size == "tiny":
        build_tiny(folder, TEXTS, clip_length_s=30.0, seed=0)
    else:
        model, processor = grpo_step.real_model()
        processor.save_pretrained(folder)
        model.save_pretrained(folder, max_shard_size="4GB")
        del model
        torch.cuda.empty_cache()
    (folder / "whole").touch()
    say(model_made_s=round(time.monotonic() - started_s, 1))
    return folder


def measure_folder(model: Path) -> ModelSizes:
    """Sizes of a model folder, without reading a weight."""
    with torch.device("meta"):
        config = grpo_step.Qwen2AudioConfig.from_pretrained(model)
        return measure(grpo_step.Qwen2AudioForConditionalGeneration(config))


def run_evaluation(scratch: Path, size: str) -> None:
    """Questions a second by our decoder and by `generate`; decoding steps against the memory."""
    on_gpu = torch.cuda.is_available()
    folder = model_folder(scratch, size)
    processor = load_processor(folder)
    model: Any = load_model(
        folder, precision="bf16" if on_gpu else "fp32", device="cuda" if on_gpu else "cpu"
    )
    root = scratch / "evaluation"
    root.mkdir(exist_ok=True)
    questions = make_questions(root, 256 if size == "7b" else 6)
    items = [
        Item(q.id, PROMPTS["answer"].fill(q.question, q.choices), root / "audio" / q.clips[0])
        for q in questions
    ]
    started_s = time.perf_counter()
    prompts = [Reader(items, processor, None)[row].prompt() for row in range(len(items))]
    say(features_s=round(time.perf_counter() - started_s, 2), questions=len(prompts))
    order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row].token_P))
    ours: dict[str, str] = {}
    for way in ("eager", "captured"):
        decoder = Decoder(model, processor, max_new_tokens=10, batch_size=None, way=way)
        decoder.complete([prompts[order[0]]])  # warms up
        batch_size = decoder.at_once(len(prompts[order[0]].token_P))
        found: dict[str, str] = {}
        started_s = now()
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            done = decoder.complete([prompts[row] for row in rows])
            found |= {questions[row].id: c.text for row, c in zip(rows, done, strict=True)}
        took_s = now() - started_s
        ours = ours or found
        say(
            way=f"ours, {way}",
            batch=batch_size,
            questions_per_s=round(len(prompts) / took_s, 2),
            equal_answers=sum(found[name] == text for name, text in ours.items()),
        )
    tell_decoding(model, processor.tokenizer.pad_token_id, [prompts[row] for row in order])
    for batch in (32, 8, 1):
        asked = questions[: 4 * batch + 4]
        started_s = now()
        plain: dict[str, str] = {}
        for first in range(0, len(asked), batch):
            rows = asked[first : first + batch]
            plain |= complete_plainly(model, processor, root / "audio", rows)
        say(
            way="generate",
            batch=batch,
            questions_per_s=round(len(asked) / (now() - started_s), 2),
            equal_answers=sum(plain[q.id] == ours[q.id] for q in asked),
            asked=len(asked),
        )


@torch.no_grad()
def tell_decoding(model: PreTrainedModel, pad_id: int, prompts: list[Prompt]) -> None:
    """Seconds of prefill and of a decoding step by batch size, against what the card allows."""
    peak = peak_operations_per_s(device_name())
    sizes = measure(model)
    for rows in (1, 8, 32, 64):
        if rows > len(prompts):
            continue
        batch = collate(prompts[:rows], pad_id)
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}

        def timed(num_tokens: int, batch: dict[str, torch.Tensor] = batch) -> list[float]:
            begin = now()
            prefilled = prefill(model, batch)
            read = now()
            stop = torch.tensor([-1])
            decode(model, prefilled, stop_ids=stop, pad_id=0, max_new_tokens=num_tokens)
            return [begin, read, now()]

        timed(2)
        times = timed(34)
        prefill_s, decode_s = (after - before for before, after in pairwise(times))
        needed = operations(
            sizes,
            None,
            text_tokens=float(batch["prompt_mask"].sum()),
            predicted_tokens=rows,
            encoder_positions=float(batch["num_frames"].sum()) / 2,
        )
        step_s = decode_s / 33
        limit_s = memory_limit_s(model, float(batch["prompt_mask"].sum()))
        say(
            decoding_batch=rows,
            prefill_s=round(prefill_s, 4),
            prefill_mfu=round(needed / prefill_s / peak, 3) if peak else None,
            step_ms=round(1000 * step_s, 3),
            times_the_memory_limit=round(step_s / limit_s, 2) if limit_s else None,
        )


def memory_limit_s(model: PreTrainedModel, num_tokens: float) -> float | None:
    """Seconds in which the card reads all weights, and keys and values of so many tokens."""
    sizes = measure(model)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    kept = 2 * sizes.text_kv_width * sizes.text_layers * model.dtype.itemsize
    speeds = [speed for name, speed in BYTES_PER_S.items() if name in device_name()]
    return (weights + kept * num_tokens) / speeds[0] if speeds else None


Decode = Callable[[DecodeWay, int], tuple[float, Completions]]  # so many tokens: seconds, result


def run_decoding(scratch: Path, size: str) -> None:
    """Decoding eagerly and captured: seconds a step, against the memory's speed, and its tokens."""
    del scratch
    few, many, more = (34, 95, 136) if size == "7b" else (10, 70, 80)  # the last two: as many keys
    num_prompts = 64 if size == "7b" else 4
    setup = grpo_step.make_setup(size, more, num_prompts, has_reference=False)
    model = setup.policy.eval()
    cases = ((8, 1), (64, 1), (8, 8)) if size == "7b" else ((2, 1), (4, 1), (1, 8))
    for num_prompts, group_size in cases:
        prompts = take(setup.prompts, range(num_prompts))
        run = decoding(model, prompts, group_size, most=more)
        num_read = float(prompts["prompt_mask"].sum()) + num_prompts * group_size * many / 2
        limit_s = memory_limit_s(model, num_read)

        def step(seconds: float, limit_s: float | None = limit_s) -> dict[str, float | None]:
            times = round(seconds / limit_s, 2) if limit_s else None
            return {"step_ms": round(1000 * seconds, 3), "times_the_memory_limit": times}

        case = {"prompts": num_prompts, "completions": group_size}
        if torch.cuda.is_available():  # torch's choice, see packed.py
            torch.backends.cuda.enable_cudnn_sdp(enabled=True)
            run("eager", 3)
            say(decode="eager, cuDNN", **case, **step(run("eager", few)[0] / (few - 1)))
            torch.backends.cuda.enable_cudnn_sdp(enabled=False)
        run("eager", 3)
        eager_s, expected = run("eager", few)
        say(decode="eager", **case, **step(eager_s / (few - 1)))
        run("captured", 3)
        (many_s, found), (more_s, _) = run("captured", many), run("captured", more)
        step_s = (more_s - many_s) / (more - many)
        equal = found.token_BGC[..., :few] == expected.token_BGC
        say(
            decode="captured",
            **case,
            **step(step_s),
            steps_s=[many, round(many_s, 4)],
            of_it_recording_s=round(many_s - (many - 1) * step_s, 4),
            equal_tokens=float(equal.float().mean()),
        )
    for way in ("eager", "captured"):
        count_launches(f"{way}, {few} tokens, {case}", partial(run, way, few))


def decoding(model: PreTrainedModel, prompts: Batch, group_size: int, *, most: int) -> Decode:
    """Decodes prompts, greedily where there is one completion a prompt; reading is not timed."""
    rows = list(range(len(prompts["prompt_ids"])))
    uniform = uniform_numbers(rows, seed=0, group_size=group_size, num_tokens=most)
    sampled: Any = {"sampling": Sampling(), "uniform_BGC": uniform} if group_size > 1 else {}

    @torch.no_grad()
    def run(way: DecodeWay, num_tokens: int) -> tuple[float, Completions]:
        prefilled = prefill(model, prompts)
        begin = now()
        stop = torch.tensor([grpo_step.NEVER_ID])
        limits: Any = {"stop_ids": stop, "pad_id": 0, "max_new_tokens": num_tokens}
        found = decode(model, prefilled, **limits, **sampled, way=way)
        return now() - begin, found

    return run


def run_resume(scratch: Path, size: str) -> None:
    """A small training killed by -9 and gone on with, against one that was left alone."""
    del size
    model = model_folder(scratch, "tiny")
    config = TrainConfig(
        name="small",
        max_steps=30,
        save_steps=10,
        prompts_per_step=2,
        precision="bf16-mixed" if torch.cuda.is_available() else "fp32",
        dataloader_workers=0,
    )
    learns = {
        "max_completion_tokens": 8,
        "group_size": 4,
        "learning_rate": 1e-3,
        "reward": "benchmarks.gpu_parts.vowels",
    }
    config = config.model_copy(update={"grpo": config.grpo.model_copy(update=learns)})
    whole, killed = scratch / "whole", scratch / "killed"
    list(watch_training(config, model, whole, steps=30))
    list(watch_training(config, model, killed, steps=15))  # then it is killed by -9
    kept = sorted(path.name for path in killed.glob("checkpoint-*"))
    list(watch_training(config, model, killed, steps=30))
    both = [rows_of(folder) for folder in (whole, killed)]
    differences = [
        abs(float(one["loss"]) - float(other["loss"])) for one, other in zip(*both, strict=True)
    ]
    say(resumed_from=kept, steps=len(differences), largest_loss_difference=max(differences))


def vowels(completion: str, example: object) -> float:
    """A reward in which sampled nonsense differs, so that a random model has something to learn."""
    del example
    return float(sum(completion.count(vowel) for vowel in "aeiou"))


def run_two_processes(scratch: Path, size: str) -> int:
    """Two processes on one card: which of NCCL and gloo lets them add up a number."""
    del size
    script = scratch / "two_processes.py"
    script.write_text(TWO_PROCESSES, encoding="utf-8")
    codes: list[int] = []
    for backend in ("gloo", "nccl") if torch.cuda.is_available() else ("gloo",):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node=2", str(script), backend]
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as child:
            try:
                output, _ = child.communicate(timeout=12)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                output, _ = child.communicate()
        why = re.findall(r"\w*(?:Error|error)\b[^\n]*", output)
        codes.append(child.returncode)
        say(backend=backend, works=child.returncode == 0, reason=why[-1] if why else None)
    return min(codes)  # one that works is enough


def device_name() -> str:
    """Of the GPU; `cpu` without one."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def now() -> float:
    """Seconds, after the device has done its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


PARTS: dict[str, Callable[[Path, str], int | None]] = {
    "tests": run_tests,
    "step-16": run_step(16),
    "step-200": run_step(200),
    "decode": run_decoding,
    "one-gpu": run_training("one-gpu"),
    "captured": run_training("one-gpu", "captured"),
    "lora": run_training("lora"),
    "evaluation": run_evaluation,
    "resume": run_resume,
    "two-processes": run_two_processes,
}

if __name__ == "__main__":
    sys.exit(main())
