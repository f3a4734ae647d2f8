"""The training loop, read from top to bottom: prepare, backward, clip and step, log, save.

What a step learns from is its method's (grpo_step.py, sft_step.py): draw, sample and reward, weigh.
It is made as a whole before its micro-batches are run, so that the loss of all micro-batches and
devices adds up to that of one large batch. A loss or gradient that is not a number stops the run
before the optimiser sees it.
"""

import resource
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from transformers import set_seed

from model import checkpoints
from model.train.estimates import operations, peak_operations_per_s
from model.train.grpo_step import GrpoStep
from model.train.order import Drawn, Draws, as_batch
from model.train.rewards import rewards_of
from model.train.rollout import Sampler, reward_completions
from model.train.session import Session
from model.train.sft_step import SftStep
from model.train.sharding import gradient_sync
from model.train.state import save_checkpoint
from model.train.step_log import Means
from storage.errors import PipelineError
from storage.records.training import StepMetrics, metrics_of, stopping_step

# Sums of a step that are shown as a speed, not as a mean.
COUNTS = ("prompt_tokens", "predicted_tokens", "encoder_positions")
ASKED_AT_ONCE = 64  # held-out questions whose features are in memory: 32 MB at 10 s

Part = TypeVar("Part")


class Method(Protocol[Part]):
    """How a network learns."""

    def prepare(self, step: int, means: Means) -> Sequence[Part]:
        """Make the micro-batches that a step, from 1, learns from here, each with `drawn`."""
        ...

    def loss(self, micro_batch: Part, means: Means) -> Tensor:
        """A part of the step's loss, with gradient: the sum over all is that of one batch."""
        ...


def train_steps(session: Session) -> None:
    """Train to the last step; a PipelineError stops it where a number is none."""
    config = session.config
    method = method_of(session)
    accelerator, policy, watch = session.accelerator, session.policy, session.watch
    policy.train()
    for step in range(session.steps_done + 1, config.max_steps + 1):
        watch.start()
        set_seed(config.seed + step)  # for the optimiser's rounding and the user's own reward
        means = Means()
        micro_batches = method.prepare(step, means)  # draw, sample and reward, weigh
        check = partial(refuse_if_not_finite, session.run.output, step)
        for micro_batch in micro_batches:
            is_last = micro_batch is micro_batches[-1]
            with watch.phase("policy"), gradient_sync(accelerator, policy, is_last=is_last):
                loss = method.loss(micro_batch, means)
                check("the loss is", loss, [micro_batch.drawn])
                # Devices' gradients are averaged, but each loss is a part of one sum.
                accelerator.backward(loss * accelerator.num_processes)
            means.add("loss", loss.detach())
        with watch.phase("optimiser"):
            norm: Any = accelerator.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
            grad_norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # if sharded
            check("the gradient's norm is", grad_norm, [part.drawn for part in micro_batches])
            learning_rate = float(session.scheduler.get_last_lr()[0])
            session.optimizer.step()
            session.scheduler.step()
            session.optimizer.zero_grad()
        is_saved = step % config.save_steps == 0 or step == config.max_steps
        if is_saved and session.held_out:
            with watch.phase("validation"):
                validate(session, means)
        session.log.write_metrics(
            step_metrics(
                session, step, means, grad_norm=float(grad_norm), learning_rate=learning_rate
            )
        )
        if is_saved:
            save_checkpoint(session, step)
            if is_stopped(session):
                break
    session.log.close()


def method_of(session: Session) -> Method[Any]:
    """GRPO or supervised fine-tuning."""
    return SftStep(session) if session.config.method == "sft" else GrpoStep(session)


def step_metrics(
    session: Session, step: int, means: Means, *, grad_norm: float, learning_rate: float
) -> StepMetrics:
    """What metrics.jsonl says of a step by what each device has counted; all take part."""
    counted = torch.stack([*means.sums.values()]).to(session.accelerator.device)
    sums = dict(zip(means.sums, session.add_up(counted).tolist(), strict=True))
    seconds = session.watch.read()
    age = (step - 1) % session.config.steps_per_rollout  # steps that learned from it before
    return metrics_of(
        {
            "step": step,
            **{name: total / n if n else None for name, (total, n) in sums.items()},
            "loss": sums["loss"][0],
            "rollout_step": step - age if session.config.method == "grpo" else None,
            "grad_norm": grad_norm,
            "learning_rate": learning_rate,
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
            "tokens_per_second": sums["predicted_tokens"][0] / seconds["total"],
            "mfu": _utilisation(session, [sums[name][0] for name in COUNTS], seconds["total"], age),
            "peak_memory_bytes": _peak_memory_bytes(session.accelerator.device),
        }
    )


def validate(session: Session, means: Means) -> None:
    """Answer this device's share of the held-out questions greedily, and count the right ones."""
    config, processor, accelerator = session.config, session.processor, session.accelerator
    number = len(session.held_out)
    draws = Draws(session.held_out, processor, config, num_draws=number)
    sampler = Sampler(session, is_greedy=True)
    accuracy = rewards_of(config.grpo, config.prompt)[:1]
    # Sharded, all devices ask equally often: some ask a question of another, which does not count.
    places = range(accelerator.process_index, number, accelerator.num_processes)
    asked = [*places, number][: -(-number // accelerator.num_processes)]
    for first in range(0, len(asked), ASKED_AT_ONCE):
        positions = asked[first : first + ASKED_AT_ONCE]
        drawn = as_batch([draws[position] for position in positions], sampler.pad_id)
        drawn = drawn.to(accelerator.device)
        with accelerator.autocast():
            completions = sampler.sample(drawn)
        scored = reward_completions(completions, drawn, rewards=accuracy, processor=processor)
        counts = torch.tensor([position < number for position in positions]).float()
        right = float((scored.reward_QGR[:, 0, 0].cpu() * counts).sum())
        means.add_sum("validation_accuracy", right, float(counts.sum()))


def is_stopped(session: Session) -> bool:
    """Whether validation ends the run here: the main process has all metrics, and tells."""
    stop = session.config.stop
    if stop is None:
        return False
    told = float(stopping_step(session.log.steps, stop.patience) is not None)
    return bool(session.add_up(torch.tensor(told, device=session.accelerator.device)))


def refuse_if_not_finite(
    output: Path, step: int, what: str, number: Tensor, parts: Sequence[Drawn]
) -> None:
    """Stop the run before a number that is none reaches the weights."""
    if bool(torch.isfinite(number)):
        return
    last = checkpoints.last_step(output)
    kept = f"the last good checkpoint is checkpoint-{last}"
    ids = ", ".join(name for part in parts for name in part.ids)
    msg = (
        f"{what} {float(number.detach())} at step {step}, in the batch with the examples {ids}; "
        f"{kept if last is not None else 'no checkpoint was written yet'}. Lower the learning "
        "rate, or look at these examples, before going on"
    )
    raise PipelineError(msg)


def _utilisation(
    session: Session, counts: Sequence[float], seconds: float, age: int
) -> float | None:
    """Share of the GPUs' peak speed (MFU), where that is known."""
    device = session.accelerator.device
    is_gpu = device.type == "cuda"
    peak = peak_operations_per_s(torch.cuda.get_device_name(device)) if is_gpu else None
    if peak is None:
        return None
    prompt, predicted, positions = counts
    needed = operations(
        session.sizes,
        session.config,
        text_tokens=prompt + predicted,
        predicted_tokens=predicted,
        encoder_positions=positions,
        is_sampled=age == 0,
    )
    return needed / seconds / (peak * session.accelerator.num_processes)


def _peak_memory_bytes(device: torch.device) -> int:
    """Most memory used so far: of the GPU by tensors, of a CPU process by everything."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts KiB
