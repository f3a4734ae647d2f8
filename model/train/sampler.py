"""One rollout for all prompts of a step, in groups that fit into the memory beside the training.

A decoding step reads all weights and starts all kernels, however many prompts it continues: 8
prompts at once, of 16 tokens, take 1.6 times less time than one by one, reading included. What is
drawn depends on seed and position alone, so the groups change no token.

Sharded layer by layer (fsdp), every process gathers each layer with all the others: there all take
the same groups and go on until all are done, and memory that runs out ends the run.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from model.network.capture import say_eager
from model.network.features import take
from model.network.kv_cache import in_groups, rows_that_fit
from model.network.packed import prefill
from model.network.sampling import (
    Completions,
    Sampling,
    decode,
    join_completions,
    uniform_numbers,
)
from model.train.estimates import compute_bytes, rollout_tokens
from model.train.order import Drawn
from model.train.session import Session
from model.train.sharding import is_sharded


class Sampler:
    """Samples completions; halves its groups when memory runs out, and remembers."""

    def __init__(self, session: Session, *, is_greedy: bool = False) -> None:
        """Keep the run; greedy, there is one completion, the likeliest tokens."""
        self._session = session
        self._is_greedy = is_greedy
        self._grpo = session.config.grpo
        self._in_step = session.config.sharding == "fsdp" and is_sharded(session.accelerator)
        if self._in_step and session.config.decode == "captured":
            say_eager("all processes gather each layer of a sharded network")
        self._most = math.inf  # prompts at once, since memory ran out
        self.pad_id = int(session.processor.tokenizer.pad_token_id)

    @torch.no_grad()
    def sample(self, drawn: Drawn) -> Completions:
        """G completions for each prompt."""
        length_Q = drawn.prompt["prompt_mask"].sum(-1).tolist()
        order = sorted(range(len(length_Q)), key=lambda row: -length_Q[row])  # least padding
        size = self._num_fitting(max(length_Q), len(order))
        policy = self._session.unwrapped
        was_training = policy.training
        policy.eval()  # no dropout, and gradient checkpointing would switch the cache off
        if self._in_step:
            groups = [order[first : first + size] for first in range(0, len(order), size)]
            parts = [self._group(drawn, rows) for rows in groups]
        else:
            parts, went_well = in_groups(order, size, partial(self._group, drawn))
            self._most = went_well if went_well < size else self._most
        policy.train(was_training)
        places = sorted(range(len(order)), key=order.__getitem__)  # back to the order of the draws
        return join_completions(parts, pad_id=self.pad_id).take(places)

    def _num_fitting(self, longest: int, num_prompts: int) -> int:
        """Prompts of a group, by the memory that is free now."""
        session = self._session
        device = session.accelerator.device
        network: Any = session.unwrapped.network
        fitting = rows_that_fit(
            network.config,
            device,
            num_tokens=rollout_tokens(session.config, longest),
            element_bytes=compute_bytes(session.config),
        )
        size = max(1, int(min(fitting, num_prompts, self._most)))
        if self._in_step:
            agreed = torch.tensor(size, device=device)
            torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MIN)
            size = int(agreed)
        return size

    def _group(self, drawn: Drawn, rows: Sequence[int]) -> Completions:
        prompt, positions = take(drawn.prompt, rows), [drawn.positions[row] for row in rows]
        session, grpo = self._session, self._grpo
        num_tokens, sampling, uniform_BGC = grpo.max_completion_tokens, None, None
        if not self._is_greedy:
            sampling = Sampling(
                temperature=grpo.temperature,
                top_k=grpo.top_k,
                top_p=grpo.top_p,
                min_new_tokens=grpo.min_new_tokens,
            )
            uniform_BGC = uniform_numbers(
                positions,
                seed=session.config.seed,
                group_size=grpo.group_size,
                num_tokens=num_tokens,
            )

        def continue_prompts(network: PreTrainedModel) -> Completions:
            return decode(
                network,
                prefill(network, prompt),
                stop_ids=session.stop_ids,
                pad_id=self.pad_id,
                max_new_tokens=num_tokens,
                sampling=sampling,
                uniform_BGC=uniform_BGC,
                way="in_step" if self._in_step else session.config.decode,
            )

        return session.unwrapped(continue_prompts)
