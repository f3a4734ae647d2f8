"""Supervised fine-tuning on the answer's text: the other half of the paper's title.

Its code was never released. The same prompts, packed pass and evaluation as GRPO; the loss is the
mean over the target's tokens (its end included) of the whole step's batch, as in transformers.

Axes: B prompts, C target tokens; one target a prompt.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import ProcessorMixin

from model.network.packed import score_completions
from model.train.order import Drawn
from model.train.session import Session
from model.train.step_log import Means, count_tokens


class Targets(NamedTuple):
    """A micro-batch of prompts with the text that is right."""

    drawn: Drawn
    token_B1C: Tensor
    mask_B1C: Tensor
    """True for the targets' tokens, their end included."""


class SftStep:
    """Cross-entropy of the target's tokens."""

    def __init__(self, session: Session) -> None:
        """Keep what every step works with."""
        self._session = session
        self._end_id = target_end_id(session.processor, session.stop_ids)
        self._num_tokens = torch.zeros(())  # of the step's targets, over all devices

    def prepare(self, step: int, means: Means) -> list[Targets]:
        """Draw, and count the target tokens of the whole step."""
        del step, means  # the batches come in order
        session = self._session
        processor, end_id = session.processor, self._end_id
        micro_batches = [add_targets(drawn, processor, end_id) for drawn in session.draw()]
        counts = torch.stack([micro_batch.mask_B1C.sum() for micro_batch in micro_batches])
        self._num_tokens = session.add_up(counts.sum().float())
        return micro_batches

    def loss(self, micro_batch: Targets, means: Means) -> Tensor:
        """Negative log-probability of the targets, divided by the tokens of the whole step."""
        drawn, token_B1C, mask_B1C = micro_batch
        scores = self._session.policy(
            partial(
                score_completions,
                prompt=drawn.prompt,
                completion_ids=token_B1C,
                completion_mask=mask_B1C,
                attention=self._session.config.attention,
            )
        )
        means.add("entropy", scores.entropy_BGC[mask_B1C])
        count_tokens(means, drawn.prompt, mask_B1C)
        return -torch.where(mask_B1C, scores.logprob_BGC, 0.0).sum() / self._num_tokens


def add_targets(drawn: Drawn, processor: ProcessorMixin, end_id: int) -> Targets:
    """The prompts with their targets' tokens, each ended by `end_id`, on the prompts' device."""
    tokenizer, device = processor.tokenizer, drawn.prompt["prompt_ids"].device
    rows = [torch.tensor([*tokenizer(text)["input_ids"], end_id]) for text in drawn.targets]
    token_BC = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
    mask_BC = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).bool()
    return Targets(drawn, token_BC[:, None].to(device), mask_BC[:, None].to(device))


def target_end_id(processor: ProcessorMixin, stop_ids: Tensor) -> int:
    """The token that ends a target: the chat template's end of turn where the model stops at it."""
    tokenizer = processor.tokenizer
    end_of_turn = tokenizer.get_vocab().get("<|im_end|>")
    if end_of_turn is not None and end_of_turn in stop_ids.tolist():
        return int(end_of_turn)
    return int(tokenizer.eos_token_id)
