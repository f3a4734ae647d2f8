"""Supervised fine-tuning on the answer's text: the other half of the paper's title.

Its code was never released. The same prompts, packed pass and evaluation as GRPO; the loss is the
mean over the target's tokens (its end included) of the whole step's batch, as in transformers.

Axes: B prompts, C target tokens; one target a prompt.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from model.train.examples import Collator
from model.train.trainer import Materials, StepTrainer


class SftTrainer(StepTrainer):
    """Cross-entropy of the target's tokens."""

    def __init__(self, materials: Materials) -> None:
        """Make the trainer."""
        end_id = target_end_id(materials)
        super().__init__(materials, Collator(materials.processor, target_end_id=end_id))
        self._batches: Sequence[dict[str, Any]] = []
        self._num_tokens = torch.ones(())

    def prepare_step(self, batches: Sequence[dict[str, Any]]) -> None:
        """Count the target tokens of the whole step, over all devices."""
        self._batches = batches
        count = torch.stack([batch["target_mask"].sum() for batch in batches]).sum().float()
        self._num_tokens = self.add_up(count)

    def micro_batch_ids(self, index: int) -> list[str]:
        """Ids of the examples in a micro-batch."""
        return [str(example["id"]) for example in self._batches[index]["examples"]]

    def micro_batch_loss(self, model: nn.Module, index: int) -> Tensor:
        """Negative log-probability of the targets, divided by the tokens of the whole step."""
        batch = self._batches[index]
        mask_B1C = batch["target_mask"]
        scores = model(
            **batch["prompt"], completion_ids=batch["target_ids"], completion_mask=mask_B1C
        )
        self.means.add("entropy", scores.entropy_BGC[mask_B1C])
        self.count_work(batch["prompt"], mask_B1C)
        return -torch.where(mask_B1C, scores.logprob_BGC, 0.0).sum() / self._num_tokens


def target_end_id(materials: Materials) -> int:
    """The token that ends a target: the chat template's end of turn where the model stops at it."""
    tokenizer = materials.processor.tokenizer
    end_of_turn = tokenizer.get_vocab().get("<|im_end|>")
    if end_of_turn is not None and end_of_turn in materials.stop_ids.tolist():
        return int(end_of_turn)
    return int(tokenizer.eos_token_id)
