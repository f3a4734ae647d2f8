"""The original's way of one GRPO step, written again for comparison: every completion by itself.

As src/trainer/grpo_trainer.py of xiaomi-research/r1-aqa: transformers' generate with a copy of the
prompt for each completion, then full forwards of policy and reference over [prompt, completion]
with a copy of the audio each, and logits at every position. Its features are padded to 30 s. One
thing is put right: features and masks are repeated in the same order, so that several prompts a
device are scored with their own audio.

Axes: B prompts, G completions a prompt, N = B x G, C completion tokens, T = prompt and completion.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, Qwen2AudioForConditionalGeneration

PLAIN_FORWARD = Qwen2AudioForConditionalGeneration.forward


@torch.no_grad()
def naive_rollout(
    model: Qwen2AudioForConditionalGeneration,
    inputs: dict[str, Tensor],
    *,
    group_size: int,
    num_tokens: int,
    never_id: int,
) -> Tensor:
    """Sample completions of exactly `num_tokens` tokens; (N, C).

    Args:
        model: The model.
        inputs: From the processor.
        group_size: Completions a prompt.
        num_tokens: Tokens a completion.
        never_id: An id that is never drawn, in place of the end token.
    """
    settings = GenerationConfig(
        max_new_tokens=num_tokens,
        do_sample=True,
        temperature=1.0,
        top_k=50,
        num_return_sequences=group_size,
        pad_token_id=0,
        eos_token_id=never_id,
    )
    generated: Any = model.generate(**inputs, generation_config=settings)
    return generated[:, inputs["input_ids"].shape[1] :]


def naive_logprob(
    model: Qwen2AudioForConditionalGeneration,
    inputs: dict[str, Tensor],
    token_NC: Tensor,
    *,
    group_size: int,
) -> Tensor:
    """Log-probabilities of endless completions, each with its own prompt and audio; (N, C)."""
    repeated = {key: value.repeat_interleave(group_size, 0) for key, value in inputs.items()}
    token_NT = torch.cat([repeated.pop("input_ids"), token_NC], 1)
    prompt_mask = repeated.pop("attention_mask")
    mask_NT = torch.cat([prompt_mask, torch.ones_like(token_NC)], 1)
    output: Any = PLAIN_FORWARD(model, input_ids=token_NT, attention_mask=mask_NT, **repeated)
    logits_NTV = output.logits[:, :-1]
    target_NT = token_NT[:, 1:]
    chosen_NT = logits_NTV.gather(-1, target_NT.unsqueeze(-1)).squeeze(-1)
    # Row by row, as TRL 0.15.2 does to save memory.
    log_total_NT = torch.stack([row.logsumexp(-1) for row in logits_NTV])
    return (chosen_NT - log_total_NT)[:, prompt_mask.shape[1] - 1 :]
