"""GRPO on the packed step: one rollout, G completions a prompt, one or more optimiser steps on it.

The loss's value says little: with one step a rollout the ratio is 1 and the advantages of a group
add up to 0, so it is beta x KL, near 0 at the start. The reward says whether it learns.

Axes: Q prompts, G completions a prompt, C completion tokens, R rewards.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import DataCollator

from model.network.qwen2_audio import PackedQwen2Audio
from model.network.vocabulary_head import CompletionScores
from model.train.examples import Collator
from model.train.grpo import (
    group_advantages,
    is_zero_variance,
    loss_denominator,
    loss_weights,
    token_loss,
)
from model.train.rewards import rewards_of
from model.train.rollout import Rollout, earn, exchange, sample
from model.train.trainer import Materials, StepTrainer
from storage.records.training import Sampled

LOGGED_PROMPTS = 2  # prompts of a step whose completions go to completions.jsonl


class GrpoTrainer(StepTrainer):
    """Group relative policy optimisation."""

    def __init__(self, materials: Materials, *, reference: PackedQwen2Audio | None) -> None:
        """Make the trainer.

        Args:
            materials: Model, data, settings.
            reference: The start model, frozen; None where beta is 0, or where the policy is a LoRA
                adapter, whose base with the adapter switched off is the reference.
        """
        super().__init__(materials, Collator(materials.processor))
        self.grpo = self.config.grpo
        self.rewards = rewards_of(self.grpo, self.config.prompt)
        self.rollouts: list[Rollout] = []
        self.steps_left = 0
        self._reference = reference
        if reference is not None:
            reference.to(self.args.device)  # pyright: ignore[reportArgumentType]  transformers' wrapper hides the overloads

    def needs_batches(self) -> bool:
        """A new rollout is due after `steps_per_rollout` optimiser steps."""
        return self.steps_left == 0

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], None]:  # noqa: ANN401  passed on
        """Prepare a step; a rollout that serves several steps is used again."""
        prepared = super().get_batch_samples(*args, **kwargs)
        self.steps_left -= 1
        return prepared

    def prepare_step(self, batches: Sequence[dict[str, Any]]) -> None:
        """Sample, score and weigh the completions of one rollout."""
        self.rollouts = [self._useful(self._roll_out(batch)) for batch in batches]
        self.steps_left = self.grpo.steps_per_rollout
        self._weigh()
        if self.grpo.beta:
            with self.watch.phase("reference"):
                for rollout in self.rollouts:
                    rollout.reference_QGC = self._reference_logprob(rollout)
        self._count_rollouts()

    def micro_batch_ids(self, index: int) -> list[str]:
        """Ids of the examples in a micro-batch."""
        return [str(example["id"]) for example in self.rollouts[index].examples]

    def micro_batch_loss(self, model: nn.Module, index: int) -> Tensor:
        """The clipped objective with the KL term."""
        rollout = self.rollouts[index]
        mask_QGC = rollout.completions.mask_BGC
        scores = self._scores(model, rollout)
        if rollout.old_QGC is None:
            rollout.old_QGC = scores.logprob_BGC.detach()
        terms = token_loss(
            scores.logprob_BGC,
            old_QGC=rollout.old_QGC,
            reference_QGC=rollout.reference_QGC,
            advantage_QG=rollout.advantage_QG,
            beta=self.grpo.beta,
            clip_low=self.grpo.clip_low,
            clip_high=self.grpo.clip_high,
        )
        if rollout.reference_QGC is not None:
            self.means.add("kl", (terms.kl_QGC * mask_QGC).sum(-1) / mask_QGC.sum(-1))
        self.means.add("entropy", scores.entropy_BGC[mask_QGC])
        self.means.add("clipped_share", terms.clipped_QGC[mask_QGC].float())
        # Padding may hold infinities; a product with 0 would make them NaN.
        return torch.where(mask_QGC, terms.loss_QGC * rollout.weight_QGC, 0.0).sum()

    def _roll_out(self, batch: dict[str, Any]) -> Rollout:
        with self.watch.phase("rollout"), self.accelerator.autocast():
            completions = sample(
                self.accelerator.unwrap_model(self.model),
                batch["prompt"],
                positions=batch["positions"],
                seed=self.config.seed,
                config=self.grpo,
                stop_ids=self.materials.stop_ids,
                pad_id=self.materials.processor.tokenizer.pad_token_id,
                in_step=self.config.sharding == "fsdp" and self.args.world_size > 1,
            )
        with self.watch.phase("reward"):
            return earn(
                completions, batch, rewards=self.rewards, processor=self.materials.processor
            )

    def _useful(self, rollout: Rollout) -> Rollout:
        """Exchange prompts whose completions all score alike for others (DAPO's dynamic sampling).

        The others are draws beyond the end of the run, at a place that follows from the prompt's
        own, so a resumed run tries the same.
        """
        redrawn: set[int] = set()
        draws = self.materials.draws
        for attempt in range(1, self.grpo.resample_attempts + 1):
            rows = is_zero_variance(rollout.reward_QG).nonzero()[:, 0].tolist()
            if self.grpo.zero_variance != "resample" or not rows:
                break
            redrawn |= set(rows)
            with self.watch.phase("features"):
                places = [rollout.positions[row] % draws.num_draws for row in rows]
                spare = [draws.at(place + attempt * draws.num_draws) for place in places]
                batch = self._prepare_inputs(cast("DataCollator", self.data_collator)(spare))
            rollout = exchange(rollout, rows, self._roll_out(batch))
        if self.grpo.zero_variance == "resample":
            self.means.add_sum("resampled_share", len(redrawn), len(rollout.texts))
        return rollout

    def _weigh(self) -> None:
        """Advantages, and each token's weight in the loss of the whole step over all devices."""
        total = torch.zeros((), device=self.args.device)
        keeps = [self._keep(rollout) for rollout in self.rollouts]
        aggregation = self.grpo.loss_aggregation
        for rollout, keep_Q in zip(self.rollouts, keeps, strict=True):
            total += loss_denominator(rollout.completions.mask_BGC, keep_Q, aggregation=aggregation)
        total = self.add_up(total).clamp(min=1)
        for rollout, keep_Q, advantage_QG in zip(
            self.rollouts, keeps, self._advantages(), strict=True
        ):
            rollout.advantage_QG = advantage_QG
            rollout.weight_QGC = (
                loss_weights(
                    rollout.completions.mask_BGC,
                    keep_Q,
                    aggregation=aggregation,
                    max_completion_tokens=self.grpo.max_completion_tokens,
                )
                / total
            )

    def _keep(self, rollout: Rollout) -> Tensor:
        """Prompts that count in the mean."""
        if self.grpo.zero_variance == "skip":
            return ~is_zero_variance(rollout.reward_QG)
        return torch.ones_like(rollout.reward_QG[:, 0], dtype=torch.bool)

    def _advantages(self) -> list[Tensor]:
        """Advantages by micro-batch; `batch` scales over all micro-batches and devices."""
        scale = self.grpo.advantage_scale
        if scale != "batch":
            return [group_advantages(rollout.reward_QG, scale=scale) for rollout in self.rollouts]
        mine_QG = torch.cat([rollout.reward_QG for rollout in self.rollouts])
        all_QG = cast("Tensor", self.accelerator.gather(mine_QG))
        begin = self.args.process_index * mine_QG.shape[0]
        advantage_QG = group_advantages(all_QG, scale=scale)[begin : begin + mine_QG.shape[0]]
        return list(advantage_QG.split([rollout.reward_QG.shape[0] for rollout in self.rollouts]))

    @torch.no_grad()
    def _reference_logprob(self, rollout: Rollout) -> Tensor:
        if self._reference is not None:
            with self.accelerator.autocast():
                return self._scores(self._reference, rollout).logprob_BGC
        adapted: Any = self.accelerator.unwrap_model(self.model)
        switch_off: Callable[[], AbstractContextManager[None]] = getattr(
            adapted, "disable_adapter", nullcontext
        )
        was_training = adapted.training
        adapted.eval()
        with self.accelerator.autocast(), switch_off():
            logprob_QGC = self._scores(self.policy, rollout).logprob_BGC
        adapted.train(was_training)
        return logprob_QGC

    def _scores(self, model: nn.Module, rollout: Rollout) -> CompletionScores:
        return model(
            **rollout.prompt,
            completion_ids=rollout.completions.token_BGC,
            completion_mask=rollout.completions.mask_BGC,
        )

    def _count_rollouts(self) -> None:
        """Take down what was sampled and earned."""
        for rollout in self.rollouts:
            self.means.add("reward", rollout.reward_QG)
            self.means.add("reward_std", rollout.reward_QG.std(dim=1))
            for index, reward in enumerate(self.rewards):
                self.means.add(f"{reward.name}_reward", rollout.reward_QGR[..., index])
            accuracy_QG = rollout.reward_QGR[..., 0]
            self.means.add("zero_variance_share", is_zero_variance(rollout.reward_QG).float())
            self.means.add("all_right_share", (accuracy_QG == 1).all(1).float())
            self.means.add("all_wrong_share", (accuracy_QG == 0).all(1).float())
            lengths_QG = rollout.completions.mask_BGC.sum(-1).float()
            self.means.add("completion_length", lengths_QG)
            self.means.add("cut_off_share", (~rollout.completions.finished_BG).float())
            self.count_work(rollout.prompt, rollout.completions.mask_BGC)
        if self.args.should_save and self.state.global_step % self.config.completions_every == 0:
            self._write_completions(self.rollouts[0])

    def _write_completions(self, rollout: Rollout) -> None:
        for row in range(min(LOGGED_PROMPTS, len(rollout.texts))):
            example = rollout.examples[row]
            for index, text in enumerate(rollout.texts[row]):
                scores = rollout.reward_QGR[row, index].tolist()
                names = [reward.name for reward in self.rewards]
                self.step_log.write_completion(
                    Sampled(
                        step=self.state.global_step + 1,
                        id=str(example["id"]),
                        question=str(example["question"]),
                        choices=tuple(cast("list[str]", example["choices"])),
                        answer=str(example["answer"]),
                        completion=text,
                        reward=float(rollout.reward_QG[row, index]),
                        rewards=dict(zip(names, scores, strict=True)),
                        finished=bool(rollout.completions.finished_BG[row, index]),
                    )
                )
