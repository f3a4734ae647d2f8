"""GRPO on the packed step: one rollout, G completions a prompt, one or more optimiser steps on it.

The loss's value says little: with one step a rollout the ratio is 1 and the advantages of a group
add up to 0, so it is beta x KL, near 0 at the start. The reward says whether it learns.

Axes: Q prompts, G completions a prompt, C completion tokens, R rewards.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial

import torch
from peft import PeftModel
from torch import Tensor

from model.network.packed import score_completions
from model.network.policy import Policy
from model.network.vocabulary_head import CompletionScores
from model.train.grpo import group_advantages, is_zero_variance, token_loss
from model.train.order import Drawn
from model.train.rewards import rewards_of
from model.train.rollout import (
    Rollout,
    Scored,
    count_completions,
    join_drawn,
    micro_batches,
    replace_rows,
    reward_completions,
    sampled_records,
    share_of_step,
    weigh,
)
from model.train.sampler import Sampler
from model.train.step import PartLoss, Session, StepBatch
from model.train.step_log import Means

LOGGED_PROMPTS = 2  # prompts of a step whose completions go to completions.jsonl


class GrpoStep:
    """Group relative policy optimisation."""

    def __init__(self, session: Session, reference: Policy | None) -> None:
        """Keep what every step works with.

        Args:
            session: Of the run.
            reference: The start model, frozen, on the device; None where beta is 0, or where the
                policy is a LoRA adapter, whose base with the adapter off is the reference.
        """
        self._session = session
        self._config = session.config.grpo
        self._reference = reference
        self.rewards = rewards_of(self._config, session.config.prompt)
        self._sampler = Sampler(session)
        self._rollouts: list[Rollout] = []
        self._old: dict[tuple[int, ...], Tensor] = {}

    def prepare(self, step: int) -> StepBatch[Rollout]:
        """Draw, sample, reward and weigh; or use a rollout again that serves several steps."""
        if (step - 1) % self._config.steps_per_rollout:
            again = [
                replace(r, old_QGC=self._old[tuple(r.scored.drawn.positions)])
                for r in self._rollouts
            ]
            means = Means()
            for rollout in again:
                count_completions(means, rollout.scored, self.rewards)
            return StepBatch(again, means)
        means, config = Means(), self._session.config
        drawn = [self._session.draw() for _ in range(self._session.num_passes)]
        scored = self._useful(self._sample(join_drawn(drawn)), means)
        self._rollouts = self._weigh(scored)
        self._old = {}
        count_completions(means, scored, self.rewards)
        if (step - 1) % config.completions_every == 0:
            num_prompts = min(LOGGED_PROMPTS, config.prompts_per_device)
            self._session.log.write_completions(
                sampled_records(scored, self.rewards, step=step, num_prompts=num_prompts)
            )
        return StepBatch(self._rollouts, means)

    def loss(self, micro_batch: Rollout) -> PartLoss:
        """The clipped objective with the KL term."""
        mask_QGC = micro_batch.scored.completions.mask_BGC
        scores = self._scores(self._session.policy, micro_batch.scored)
        old_QGC = micro_batch.old_QGC
        if old_QGC is None:
            old_QGC = scores.logprob_BGC.detach()
            self._old[tuple(micro_batch.scored.drawn.positions)] = old_QGC
        terms = token_loss(
            scores.logprob_BGC,
            old_QGC=old_QGC,
            reference_QGC=micro_batch.reference_QGC,
            advantage_QG=micro_batch.advantage_QG,
            beta=self._config.beta,
            clip_low=self._config.clip_low,
            clip_high=self._config.clip_high,
        )
        means = Means()
        if micro_batch.reference_QGC is not None:
            means.add("kl", (terms.kl_QGC * mask_QGC).sum(-1) / mask_QGC.sum(-1))
        means.add("entropy", scores.entropy_BGC[mask_QGC])
        means.add("clipped_share", terms.clipped_QGC[mask_QGC].float())
        # Padding may hold infinities; a product with 0 would make them NaN.
        loss = torch.where(mask_QGC, terms.loss_QGC * micro_batch.weight_QGC, 0.0).sum()
        return PartLoss(loss, means)

    def _sample(self, drawn: Drawn) -> Scored:
        session = self._session
        with session.watch.phase("rollout"), session.accelerator.autocast():
            completions = self._sampler.sample(drawn)
        with session.watch.phase("reward"):
            return reward_completions(
                completions, drawn, rewards=self.rewards, processor=session.processor
            )

    def _useful(self, scored: Scored, means: Means) -> Scored:
        """Exchange prompts whose completions all score alike for others (DAPO's dynamic sampling).

        The others are draws beyond the end of the run, at a place that follows from the prompt's
        own, so a resumed run tries the same.
        """
        if self._config.zero_variance != "resample":
            return scored
        session, draws = self._session, self._session.draws
        redrawn: set[int] = set()
        for attempt in range(1, self._config.resample_attempts + 1):
            rows = is_zero_variance(scored.reward_QG).nonzero()[:, 0].tolist()
            if not rows:
                break
            redrawn |= set(rows)
            with session.watch.phase("features"):
                places = [scored.drawn.positions[row] % len(draws) for row in rows]
                spare = [draws.at(place + attempt * len(draws)) for place in places]
                drawn = session.collator(spare).to(session.accelerator.device)
            scored = replace_rows(scored, rows, self._sample(drawn), pad_id=self._sampler.pad_id)
        means.add_sum("resampled_share", len(redrawn), len(scored.texts))
        return scored

    def _weigh(self, scored: Scored) -> list[Rollout]:
        """Advantages, and each token's weight in the loss of the whole step over all devices."""
        session = self._session
        step_total = session.add_up(share_of_step(scored, self._config)).clamp(min=1)
        advantage_QG = self._advantages(scored.reward_QG)
        rollouts: list[Rollout] = []
        for rows in micro_batches(scored, session.config.prompts_per_device):
            part = scored.take(rows)
            with session.watch.phase("reference"):
                reference_QGC = self._reference_logprob(part)
            rollouts.append(
                weigh(
                    part,
                    self._config,
                    advantage_QG=advantage_QG[rows],
                    step_total=step_total,
                    reference_QGC=reference_QGC,
                )
            )
        return rollouts

    def _advantages(self, reward_QG: Tensor) -> Tensor:
        """Advantages of the step's completions; `batch` scales over those of all devices."""
        scale = self._config.advantage_scale
        if scale != "batch":
            return group_advantages(reward_QG, scale=scale)
        accelerator = self._session.accelerator
        advantage_QG = group_advantages(accelerator.gather(reward_QG), scale=scale)  # pyright: ignore[reportArgumentType]  a tensor for a tensor
        return advantage_QG.chunk(accelerator.num_processes)[accelerator.process_index]

    @torch.no_grad()
    def _reference_logprob(self, scored: Scored) -> Tensor | None:
        """Log-probabilities under the start model; None where beta is 0."""
        if not self._config.beta:
            return None
        with self._session.accelerator.autocast():
            if self._reference is not None:
                return self._scores(self._reference, scored).logprob_BGC
            policy = self._session.unwrapped
            was_training = policy.training
            policy.eval()
            with _without_adapter(policy):
                logprob_QGC = self._scores(policy, scored).logprob_BGC
            policy.train(was_training)
            return logprob_QGC

    def _scores(self, policy: Policy, scored: Scored) -> CompletionScores:
        return policy(
            partial(
                score_completions,
                prompt=scored.drawn.prompt,
                completion_ids=scored.completions.token_BGC,
                completion_mask=scored.completions.mask_BGC,
                attention=self._session.config.attention,
            )
        )


def _without_adapter(policy: Policy) -> AbstractContextManager[None]:
    network = policy.network
    return network.disable_adapter() if isinstance(network, PeftModel) else nullcontext()
