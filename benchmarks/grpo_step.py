"""One GRPO step, the naive way and the packed way, in one process and interleaved.

    python -m benchmarks.grpo_step [--size tiny|medium|7b] [--prompts 1] [--repeats 5] [--lora]
        [--json]

Counted: rollout, policy forward, reference forward, policy backward. Not counted: mel features,
rewards, the optimiser. With several prompts, both learn from one at a time (prompts_per_device 1);
the naive way samples them so, too, as the original does, and ours in one rollout. The model has
random weights and never ends a completion early. With --lora, adapters learn, without dropout, and
both take the base with the adapters off for the reference, as TRL does. Added peak memory is the
highest resident set (on a GPU: allocated tensors) during the step above what was there before it. A
ratio is naive divided by packed: above 1, packed takes less. With --threads 1 on a CPU seconds are
the process's own.
"""

import argparse
import copy
import ctypes
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration
from transformers.utils import logging as transformers_logging

from benchmarks.naive_grpo import naive_logprob, naive_rollout
from model.config import GrpoConfig, LoraConfig
from model.network.features import Batch, Prompt, collate, mel_features, prompt_tokens, take
from model.network.loading import load_model, load_processor
from model.network.packed import prefill, score_completions
from model.network.policy import add_adapter
from model.network.sampling import Sampling, decode, uniform_numbers
from model.network.tiny import build_tiny
from model.prompt import PROMPTS
from model.train.grpo import group_advantages, loss_denominator, loss_weights, token_loss

GROUP_SIZE = 8
CLIP_S = 10.0
EXTRACTOR_S = 30.0  # the real extractor pads every clip to it
NEVER_ID = -1  # no token: completions run to the limit
QUESTION = PROMPTS["answer"].fill(
    "What is the source of the sound in the audio?",
    ["motorcycle engine", "dog barking", "church bell", "rain on a roof"],
)
REAL_SIZES = {
    "audio_config": {
        "model_type": "qwen2_audio_encoder",
        "num_mel_bins": 128,
        "encoder_layers": 32,
        "d_model": 1280,
        "encoder_attention_heads": 20,
        "encoder_ffn_dim": 5120,
        "max_source_positions": 1500,
    },
    "text_config": {
        "model_type": "qwen2",
        "vocab_size": 156_032,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "intermediate_size": 11_008,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "use_sliding_window": False,
        "tie_word_embeddings": False,
    },
}


class Setup(NamedTuple):
    """Two models and a step's prompts, in both forms."""

    policy: Qwen2AudioForConditionalGeneration
    reference: Qwen2AudioForConditionalGeneration
    inputs: list[dict[str, Tensor]]
    """The processor's, prompt by prompt."""
    prompts: Batch
    num_tokens: int
    adapted: PeftModel | None = None
    """The policy's adapters, without which it is the reference itself; None: a second model is."""

    @contextmanager
    def as_reference(self) -> Iterator[Any]:
        """The reference, without gradient."""
        off = self.adapted.disable_adapter() if self.adapted else nullcontext()
        with torch.no_grad(), off:
            yield self.policy if self.adapted else self.reference

    @property
    def num_prompts(self) -> int:
        """Prompts of the step."""
        return len(self.inputs)


@dataclass
class Measured:
    """One step."""

    seconds: dict[str, float] = field(default_factory=dict)
    added_bytes: int = 0
    tokens: Tensor | None = None
    """Of the first prompt's completions, (G, C)."""
    logprobs: Tensor | None = None


def main() -> None:
    """Measure, and print a table or one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["tiny", "medium", "7b"], default="medium")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=16, help="tokens of each completion")
    parser.add_argument("--prompts", type=int, default=1, help="prompts of the step")
    parser.add_argument("--lora", action="store_true", help="adapters learn, nothing else")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's choice")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    arguments = parser.parse_args()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    setup = make_setup(arguments.size, arguments.tokens, arguments.prompts)
    if arguments.lora:
        adapted = add_adapter(setup.policy, LoraConfig(dropout=0.0))
        assert isinstance(adapted, PeftModel)
        setup = setup._replace(adapted=adapted, reference=setup.policy)
    result = compare(setup, repeats=arguments.repeats)
    result = {
        "size": arguments.size,
        "lora": arguments.lora,
        "device": _device_name(setup),
        **result,
    }
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=1))


def make_setup(
    size: str, num_tokens: int, num_prompts: int = 1, *, has_reference: bool = True
) -> Setup:
    """Random models of a size, and 10 s clips with a question; else the policy is the reference."""
    if size == "7b":
        policy, processor = real_model()
    else:
        with tempfile.TemporaryDirectory() as folder:
            built = build_tiny(
                Path(folder), [QUESTION], clip_length_s=EXTRACTOR_S, seed=0, size=size
            )  # type: ignore[arg-type]  argparse has checked it
            processor = load_processor(built)
            policy = load_model(built, precision="fp32")
    reference = copy.deepcopy(policy) if has_reference else policy
    device = next(policy.parameters()).device
    rng = np.random.default_rng(0)
    prompts: list[Prompt] = []
    inputs: list[dict[str, Tensor]] = []
    for _ in range(num_prompts):
        wave = (rng.standard_normal(int(16_000 * CLIP_S)) * 0.1).astype(np.float32)
        mel = mel_features(processor, wave)
        tokens = prompt_tokens(processor, QUESTION, mel.num_frames)
        prompts.append(Prompt(tokens, mel))
        padded = processor.feature_extractor(
            wave,
            sampling_rate=16_000,
            return_attention_mask=True,
            padding="max_length",
            return_tensors="pt",
        )
        named = {
            "input_ids": tokens[None],
            "attention_mask": torch.ones_like(tokens[None]),
            "input_features": padded["input_features"].to(policy.dtype),
            "feature_attention_mask": padded["attention_mask"],
        }
        inputs.append({key: value.to(device) for key, value in named.items()})
    return Setup(
        policy.train(),
        reference.eval().requires_grad_(requires_grad=False),
        inputs,
        {key: value.to(device) for key, value in collate(prompts, pad_id=0).items()},
        num_tokens,
    )


def compare(setup: Setup, *, repeats: int) -> dict[str, Any]:
    """Run both ways in turns; the first turn warms up and is not counted."""
    runs: dict[str, list[Measured]] = {"naive": [], "packed": []}
    for turn in range(repeats + 1):
        # Two tokens are enough to warm up.
        asked = setup if turn else setup._replace(num_tokens=min(2, setup.num_tokens))
        for name, step in (("naive", naive_step), ("packed", packed_step)):
            measured = step(asked, seed=turn)
            if turn:
                runs[name].append(measured)
        print(f"turn {turn}/{repeats}", file=sys.stderr, flush=True)
    summary = {name: _summary(measured) for name, measured in runs.items()}
    naive, packed = summary["naive"], summary["packed"]
    return {
        "ratio_total": round(naive["seconds"]["total"] / packed["seconds"]["total"], 3),
        "ratio_memory": round(naive["added_peak_bytes"] / packed["added_peak_bytes"], 3),
        "max_abs_logprob_diff": largest_difference(setup, runs["packed"][-1]),
        "prompts": setup.num_prompts,
        "prompt_tokens": setup.prompts["prompt_ids"].shape[1],
        "completion_tokens": setup.num_tokens,
        "group_size": GROUP_SIZE,
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "naive": naive,
        "packed": packed,
    }


def naive_step(setup: Setup, *, seed: int) -> Measured:
    """One step as the original does it, prompt by prompt."""
    torch.manual_seed(seed)
    with _measuring(setup) as (measured, phase):
        for inputs in setup.inputs:
            with phase("rollout"):
                token_GC = naive_rollout(
                    setup.policy,
                    inputs,
                    group_size=GROUP_SIZE,
                    num_tokens=setup.num_tokens,
                    never_id=NEVER_ID,
                )
            with phase("policy forward"):
                logprob = naive_logprob(setup.policy, inputs, token_GC, group_size=GROUP_SIZE)
            with phase("reference"), setup.as_reference() as model:
                reference = naive_logprob(model, inputs, token_GC, group_size=GROUP_SIZE)
            with phase("policy backward"):
                _loss(logprob[None], reference[None], seed, setup.num_prompts).backward()
    return measured


def packed_step(setup: Setup, *, seed: int) -> Measured:
    """One step as this project does it: one rollout, then prompt by prompt."""
    positions = [seed * setup.num_prompts + row for row in range(setup.num_prompts)]
    with _measuring(setup) as (measured, phase):
        with phase("rollout"), torch.no_grad():
            setup.policy.eval()
            completions = decode(
                setup.policy,
                prefill(setup.policy, setup.prompts),
                stop_ids=torch.tensor([NEVER_ID]),
                pad_id=0,
                max_new_tokens=setup.num_tokens,
                sampling=Sampling(),
                uniform_BGC=uniform_numbers(
                    positions, seed=0, group_size=GROUP_SIZE, num_tokens=setup.num_tokens
                ),
            )
            setup.policy.train()
        for row in range(setup.num_prompts):
            part = completions.take([row])
            scored: dict[str, Any] = {
                "prompt": take(setup.prompts, [row]),
                "completion_ids": part.token_BGC,
                "completion_mask": part.mask_BGC,
            }
            with phase("policy forward"):
                logprob = score_completions(setup.policy, **scored).logprob_BGC
            with phase("reference"), setup.as_reference() as model:
                reference = score_completions(model, **scored).logprob_BGC
            with phase("policy backward"):
                _loss(logprob, reference, seed, setup.num_prompts).backward()
            if row == 0:
                measured.tokens, measured.logprobs = part.token_BGC[0], logprob[0].detach()
    return measured


def largest_difference(setup: Setup, measured: Measured) -> float:
    """Largest difference between the packed and the naive log-probability of the same tokens."""
    assert measured.tokens is not None
    assert measured.logprobs is not None
    with torch.no_grad():
        naive = naive_logprob(setup.policy, setup.inputs[0], measured.tokens, group_size=GROUP_SIZE)
    return float((naive.float() - measured.logprobs).abs().max())


def _loss(logprob: Tensor, reference: Tensor, seed: int, num_prompts: int) -> Tensor:
    """One prompt's part of GRPO's loss, with made rewards."""
    config = GrpoConfig()
    generator = torch.Generator().manual_seed(seed)
    reward = torch.randint(0, 3, logprob.shape[:2], generator=generator).float().to(logprob.device)
    mask = torch.ones_like(logprob, dtype=torch.bool)
    keep = torch.ones_like(reward[:, 0], dtype=torch.bool)
    terms = token_loss(
        logprob,
        config,
        old_QGC=logprob.detach(),
        reference_QGC=reference,
        advantage_QG=group_advantages(reward),
    )
    weights = loss_weights(mask, keep, config) / loss_denominator(mask, keep, config)
    return (terms.loss_QGC * weights).sum() / num_prompts


@contextmanager
def _measuring(setup: Setup) -> Iterator[tuple[Measured, Callable[[str], Any]]]:
    """Time phases and take the peak of memory; gradients are gone before and after."""
    device = next(setup.policy.parameters()).device
    setup.policy.zero_grad(set_to_none=True)
    before = _reset_peak(device)
    measured = Measured()

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        begin = _now(device)
        yield
        measured.seconds[name] = measured.seconds.get(name, 0.0) + _now(device) - begin

    yield measured, phase
    measured.added_bytes = max(_peak(device) - before, 1)
    setup.policy.zero_grad(set_to_none=True)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif torch.get_num_threads() == 1:
        return time.process_time()  # which others' work on the machine does not lengthen
    return time.perf_counter()


def _reset_peak(device: torch.device) -> int:
    """Forget the peak so far; returns the bytes in use now."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    ctypes.CDLL(None).malloc_trim(0)  # give freed memory back, or the next step seems to need none
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): resets VmHWM
    return _status_bytes("VmRSS")


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _status_bytes("VmHWM")


def _status_bytes(key: str) -> int:
    """A line of Linux's /proc/self/status; it counts in KiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    msg = f"/proc/self/status has no {key}: this benchmark measures memory on Linux only"
    raise OSError(msg)


def _summary(runs: list[Measured]) -> dict[str, Any]:
    """Medians over the repeats."""
    names = list(runs[0].seconds)
    seconds = {name: statistics.median(run.seconds[name] for run in runs) for name in names}
    totals = [sum(run.seconds.values()) for run in runs]
    seconds["total"] = statistics.median(totals)
    return {
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "all_totals": [round(total, 3) for total in totals],
        "added_peak_bytes": int(statistics.median(run.added_bytes for run in runs)),
    }


def real_model() -> tuple[Qwen2AudioForConditionalGeneration, Any]:
    """A bf16 model of the real one's sizes on the GPU, random weights, and a processor for it."""
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        build_tiny(where, [QUESTION], clip_length_s=EXTRACTOR_S, seed=0, size="medium")
        processor = load_processor(where)
    audio_id = processor.tokenizer.convert_tokens_to_ids("<|AUDIO|>")
    config = Qwen2AudioConfig(**REAL_SIZES, audio_token_index=audio_id)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = Qwen2AudioForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    return model, processor


def _device_name(setup: Setup) -> str:
    device = next(setup.policy.parameters()).device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


if __name__ == "__main__":
    main()
