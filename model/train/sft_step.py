"""Supervised fine-tuning on the answer's text: the other half of the paper's title.

Its code was never released. The same prompts, packed pass and evaluation as GRPO; the loss is the
mean over the target's tokens (its end included) of the whole step's batch, as in transformers.

Axes: B prompts, C target tokens; one target a prompt.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import ProcessorMixin

from model.network.features import Batch
from model.network.packed import score_completions
from model.train.step import PartLoss, Session, StepBatch, count_tokens
from model.train.step_log import Means


@dataclass(frozen=True, slots=True)
class Targets:
    """A micro-batch of prompts with the text that is right."""

    ids: list[str]
    """Of the examples."""
    prompt: Batch
    """Tensors of the prompts."""
    token_B1C: Tensor
    """The targets."""
    mask_B1C: Tensor
    """True for their tokens."""
    num_tokens: Tensor
    """Target tokens of the whole step, over all devices."""


class SftStep:
    """Cross-entropy of the target's tokens."""

    def __init__(self, session: Session) -> None:
        """Keep what every step works with; its collator makes targets."""
        self._session = session

    def prepare(self, step: int) -> StepBatch[Targets]:
        """Draw, and count the target tokens of the whole step."""
        del step  # the batches come in order
        session = self._session
        batches = [session.draw() for _ in range(session.num_passes)]
        pairs = [_targets(drawn.target_ids, drawn.target_mask) for drawn in batches]
        counts = torch.stack([mask_B1C.sum() for _, mask_B1C in pairs])
        num_tokens = session.add_up(counts.sum().float())
        micro_batches = [
            Targets(drawn.ids, drawn.prompt, *pair, num_tokens)
            for drawn, pair in zip(batches, pairs, strict=True)
        ]
        return StepBatch(micro_batches, Means())

    def loss(self, micro_batch: Targets) -> PartLoss:
        """Negative log-probability of the targets, divided by the tokens of the whole step."""
        mask_B1C = micro_batch.mask_B1C
        scores = self._session.policy(
            partial(
                score_completions,
                prompt=micro_batch.prompt,
                completion_ids=micro_batch.token_B1C,
                completion_mask=mask_B1C,
                attention=self._session.config.attention,
            )
        )
        means = Means()
        means.add("entropy", scores.entropy_BGC[mask_B1C])
        count_tokens(means, micro_batch.prompt, mask_B1C)
        loss = -torch.where(mask_B1C, scores.logprob_BGC, 0.0).sum() / micro_batch.num_tokens
        return PartLoss(loss, means)


def target_end_id(processor: ProcessorMixin, stop_ids: Tensor) -> int:
    """The token that ends a target: the chat template's end of turn where the model stops at it."""
    tokenizer = processor.tokenizer
    end_of_turn = tokenizer.get_vocab().get("<|im_end|>")
    if end_of_turn is not None and end_of_turn in stop_ids.tolist():
        return int(end_of_turn)
    return int(tokenizer.eos_token_id)


def _targets(token_B1C: Tensor | None, mask_B1C: Tensor | None) -> tuple[Tensor, Tensor]:
    if token_B1C is None or mask_B1C is None:
        msg = "supervised fine-tuning needs targets: give the collator a target_end_id"
        raise ValueError(msg)
    return token_B1C, mask_B1C
