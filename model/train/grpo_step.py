"""GRPO on the packed step: one rollout, G completions a prompt, one or more optimiser steps on it.

The loss's value says little: with one step a rollout the ratio is 1 and the advantages of a group
add up to 0, so it is beta x KL, near 0 at the start. The reward says whether it learns.

Axes: Q prompts, G completions a prompt, C completion tokens, R rewards.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from model.network.packed import score_completions
from model.network.policy import Policy
from model.network.vocabulary_head import CompletionScores
from model.train.grpo import (
    group_advantages,
    is_zero_variance,
    loss_denominator,
    loss_weights,
    token_loss,
)
from model.train.order import Drawn, as_batch, join_drawn
from model.train.rewards import rewards_of
from model.train.rollout import (
    Rollout,
    Sampler,
    Scored,
    count_completions,
    micro_batches,
    replace_rows,
    reward_completions,
    sampled_records,
)
from model.train.session import Session
from model.train.step_log import Means

LOGGED_PROMPTS = 2  # prompts of a step whose completions go to completions.jsonl


class GrpoStep:
    """Group relative policy optimisation."""

    def __init__(self, session: Session) -> None:
        """Keep what every step works with."""
        self._session = session
        self._config = session.config.grpo
        self.rewards = rewards_of(self._config, session.config.prompt)
        self._sampler = Sampler(session)
        self._scored: Scored | None = None
        self._rollouts: list[Rollout] = []
        self._old: dict[tuple[int, ...], Tensor] = {}  # of each rollout when it was sampled

    def prepare(self, step: int, means: Means) -> list[Rollout]:
        """Draw, sample, reward and weigh; or use a rollout again that serves several steps."""
        session = self._session
        if self._scored is None or (step - 1) % self._config.steps_per_rollout == 0:
            self._scored = self._useful(self._sample(join_drawn(session.draw())), means)
            self._rollouts, self._old = self._weigh(self._scored), {}
            if (step - 1) % session.config.completions_every == 0:
                num_prompts = min(LOGGED_PROMPTS, session.config.prompts_per_device)
                session.log.write_completions(
                    sampled_records(self._scored, self.rewards, step=step, num_prompts=num_prompts)
                )
        count_completions(means, self._scored, self.rewards)
        return self._rollouts

    def loss(self, micro_batch: Rollout, means: Means) -> Tensor:
        """The clipped objective with the KL term."""
        mask_QGC = micro_batch.scored.completions.mask_BGC
        scores = self._scores(self._session.policy, micro_batch.scored)
        # In the first step on a rollout, the policy that sampled is the one that learns.
        key = tuple(micro_batch.drawn.positions)
        terms = token_loss(
            scores.logprob_BGC,
            self._config,
            old_QGC=self._old.setdefault(key, scores.logprob_BGC.detach()),
            reference_QGC=micro_batch.reference_QGC,
            advantage_QG=micro_batch.advantage_QG,
        )
        if micro_batch.reference_QGC is not None:
            means.add("kl", (terms.kl_QGC * mask_QGC).sum(-1) / mask_QGC.sum(-1))
        means.add("entropy", scores.entropy_BGC[mask_QGC])
        means.add("clipped_share", terms.clipped_QGC[mask_QGC].float())
        # Padding may hold infinities; a product with 0 would make them NaN.
        return torch.where(mask_QGC, terms.loss_QGC * micro_batch.weight_QGC, 0.0).sum()

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
                spare = [draws[place + attempt * len(draws)] for place in places]
                drawn = as_batch(spare, self._sampler.pad_id).to(session.accelerator.device)
            scored = replace_rows(scored, rows, self._sample(drawn), pad_id=self._sampler.pad_id)
        means.add_sum("resampled_share", len(redrawn), len(scored.texts))
        return scored

    def _weigh(self, scored: Scored) -> list[Rollout]:
        """Advantages, and each token's weight in the loss of the whole step over all devices."""
        session, config = self._session, self._config
        mask_QGC = scored.completions.mask_BGC
        keep_Q = torch.ones_like(scored.reward_QG[:, 0], dtype=torch.bool)
        if config.zero_variance == "skip":
            keep_Q = ~is_zero_variance(scored.reward_QG)
        step_total = session.add_up(loss_denominator(mask_QGC, keep_Q, config)).clamp(min=1)
        weight_QGC = loss_weights(mask_QGC, keep_Q, config) / step_total
        advantage_QG = self._advantages(scored.reward_QG)
        rollouts: list[Rollout] = []
        for rows in micro_batches(scored, session.config.prompts_per_device):
            part = scored.take(rows)
            num_tokens = part.completions.mask_BGC.shape[-1]
            with session.watch.phase("reference"):
                reference_QGC = self._reference_logprob(part)
            weight = weight_QGC[rows, :, :num_tokens]
            rollouts.append(Rollout(part, advantage_QG[rows], weight, reference_QGC))
        return rollouts

    def _advantages(self, reward_QG: Tensor) -> Tensor:
        """Advantages of the step's completions; `batch` scales over those of all devices."""
        accelerator, scale = self._session.accelerator, self._config.advantage_scale
        if scale != "batch":
            return group_advantages(reward_QG, scale=scale)
        advantage_QG = group_advantages(accelerator.gather(reward_QG), scale=scale)  # pyright: ignore[reportArgumentType]  a tensor for a tensor
        return advantage_QG.chunk(accelerator.num_processes)[accelerator.process_index]

    @torch.no_grad()
    def _reference_logprob(self, scored: Scored) -> Tensor | None:
        """Log-probabilities under the start model; None where beta is 0."""
        if not self._config.beta:
            return None
        reference = self._session.reference
        with self._session.accelerator.autocast():
            if reference is not None:
                return self._scores(reference, scored).logprob_BGC
            policy = self._session.unwrapped
            network: Any = policy.network
            was_training = policy.training
            policy.eval()
            with network.disable_adapter():
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
