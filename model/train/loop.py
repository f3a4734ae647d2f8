"""The training loop, read from top to bottom: prepare, backward, clip and step, log, save.

`train_steps` is one optimiser step after another. What a step learns from is its method's
(grpo_step.py, sft_step.py): draw, sample and reward, weigh. It is made as a whole before its
micro-batches are run, so that the loss of all micro-batches and devices adds up to that of one
large batch. accelerate spreads it over devices.

Weights are loaded before the loop starts, also on a resume, and the data start at the position of
the resumed step. A loss or gradient that is not a number stops the run before the optimiser sees
it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from accelerate import Accelerator
from pydantic import JsonValue
from torch import Tensor, nn
from transformers import ProcessorMixin, set_seed

from model import checkpoints
from model.config import TrainConfig, idle_settings
from model.network.family import family_of_network
from model.network.policy import Policy, without_adapter
from model.train.examples import Example
from model.train.grpo_step import GrpoStep
from model.train.order import Collator, Draws, read_batches
from model.train.rewards import rewards_of
from model.train.rollout import reward_completions
from model.train.sampler import Sampler
from model.train.sft_step import SftStep, target_end_id
from model.train.sharding import gradient_sync, make_accelerator, share, share_weights
from model.train.state import State, make_optimizer, make_scheduler
from model.train.step import Method, MicroBatch, Session, step_metrics
from model.train.step_log import Means, StepLog, Stopwatch
from storage.errors import PipelineError
from storage.records.sizes import ModelSizes

ASKED_AT_ONCE = 64  # held-out questions whose features are in memory: 32 MB at 10 s


class TrainingInputs(NamedTuple):
    """What a training works on."""

    config: TrainConfig
    """Settings."""
    settings: dict[str, JsonValue]
    """The settings that a resumed run must share, kept in every checkpoint."""
    output: Path
    """Folder of the training."""
    network: nn.Module
    """A model of transformers, or peft's wrapper of one, with the weights to begin from."""
    reference: nn.Module | None
    """The start model, frozen; None where none is needed."""
    processor: ProcessorMixin
    """Of the model."""
    examples: Sequence[Example]
    """What it learns from."""
    held_out: Sequence[Example]
    """What is asked at each checkpoint."""
    stop_ids: Tensor
    """Token ids that end a completion."""
    sizes: ModelSizes
    """Of the model, to count its work."""
    card: Callable[[int], str]
    """The model card of a step's checkpoint."""


class Loop(NamedTuple):
    """A run that is ready for its next step."""

    session: Session
    method: Method[Any]
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    state: State
    steps_done: int


def train_steps(inputs: TrainingInputs, resume_from: Path | None) -> None:
    """Train to the last step.

    Args:
        inputs: Model, data and settings.
        resume_from: Whole checkpoint whose optimiser, schedule and random state to take up; None:
            from the start.

    Raises:
        PipelineError: If a loss or a gradient is not a number.
    """
    config = inputs.config
    loop = begin(inputs, resume_from)
    session, method = loop.session, loop.method
    accelerator, policy, watch = session.accelerator, session.policy, session.watch
    policy.train()
    for step in range(loop.steps_done + 1, config.max_steps + 1):
        watch.start()
        set_seed(config.seed + step)  # for the optimiser's rounding and the user's own reward
        batch = method.prepare(step)  # draw, sample and reward, weigh
        means = batch.means
        for micro_batch in batch.micro_batches:
            is_last = micro_batch is batch.micro_batches[-1]
            with watch.phase("policy"), gradient_sync(accelerator, policy, is_last=is_last):
                part = method.loss(micro_batch)
                refuse_if_not_finite(inputs, step, "the loss is", part.loss, [micro_batch])
                # Devices' gradients are averaged, but each loss is a part of one sum.
                accelerator.backward(part.loss * accelerator.num_processes)
            means.add_all(part.means)
            means.add_sum("loss", float(part.loss.detach()), 0)
        with watch.phase("optimiser"):
            grad_norm = clip_gradients(session)
            what = "the gradient's norm is"
            refuse_if_not_finite(inputs, step, what, grad_norm, batch.micro_batches)
            learning_rate = float(loop.scheduler.get_last_lr()[0])
            loop.optimizer.step()
            loop.scheduler.step()
            loop.optimizer.zero_grad()
        is_saved = step % config.save_steps == 0 or step == config.max_steps
        if is_saved and inputs.held_out:
            with watch.phase("validation"):
                validate(inputs, session, means)
        metrics = step_metrics(
            session,
            inputs.sizes,
            step=step,
            means=means,
            grad_norm=float(grad_norm),
            learning_rate=learning_rate,
        )
        session.log.write_metrics(metrics)
        if is_saved:
            loop.state.save(
                inputs.output,
                step,
                processor=inputs.processor,
                card=inputs.card(step),
                settings=inputs.settings,
                made_with=idle_settings(config) | {"num_devices": accelerator.num_processes},
                kept=config.checkpoints,
            )
            if is_stopped(session):
                break
    session.log.close()


def begin(inputs: TrainingInputs, resume_from: Path | None) -> Loop:
    """Spread the model over the devices, open data and logs, and take up a checkpoint's state."""
    config, output = inputs.config, inputs.output
    steps_done = 0 if resume_from is None else checkpoints.step_of(resume_from)
    network = without_adapter(inputs.network)
    accelerator = make_accelerator(config, family_of_network(network).layers)
    refuse_other_steps(accelerator, steps_done)
    set_seed(config.seed)
    if config.gradient_checkpointing:
        network.activation_checkpointing_enable()
    policy = Policy(inputs.network)
    weights = policy.state_dict() if accelerator.is_main_process else {}
    optimizer = make_optimizer(policy, config)
    policy, optimizer = accelerator.prepare(policy, optimizer)
    share_weights(accelerator, policy, weights)
    end_id = None
    if config.method == "sft":
        end_id = target_end_id(inputs.processor, inputs.stop_ids)
    collator = Collator(inputs.processor, target_end_id=end_id)
    draws = make_draws(inputs, steps_done)
    session = Session(
        config=config,
        accelerator=accelerator,
        policy=policy,
        processor=inputs.processor,
        stop_ids=inputs.stop_ids,
        draws=draws,
        collator=collator,
        batches=read_batches(
            draws,
            collator,
            config,
            rank=accelerator.process_index,
            num_processes=accelerator.num_processes,
        ),
        log=StepLog(config, output, steps_done=steps_done, is_main=accelerator.is_main_process),
        watch=Stopwatch(accelerator.device),
    )
    scheduler = make_scheduler(optimizer, config, steps_done)
    state = State(accelerator, policy, optimizer)
    if resume_from is not None:
        state.load(resume_from, rates=scheduler.get_last_lr())
    return Loop(session, make_method(inputs, session), optimizer, scheduler, state, steps_done)


def validate(inputs: TrainingInputs, session: Session, means: Means) -> None:
    """Answer this device's share of the held-out questions greedily, and count the right ones."""
    config, accelerator = inputs.config, session.accelerator
    number = len(inputs.held_out)
    draws = Draws(inputs.held_out, inputs.processor, config, num_draws=number)
    collator, sampler = Collator(inputs.processor), Sampler(session, is_greedy=True)
    accuracy = rewards_of(config.grpo, config.prompt)[:1]
    # Sharded, all devices ask equally often: some ask a question of another, which does not count.
    places = range(accelerator.process_index, number, accelerator.num_processes)
    asked = [*places, number][: -(-number // accelerator.num_processes)]
    for first in range(0, len(asked), ASKED_AT_ONCE):
        positions = asked[first : first + ASKED_AT_ONCE]
        drawn = collator([draws.at(position) for position in positions]).to(accelerator.device)
        with accelerator.autocast():
            completions = sampler.sample(drawn)
        scored = reward_completions(
            completions, drawn, rewards=accuracy, processor=inputs.processor
        )
        counts = torch.tensor([position < number for position in positions]).float()
        right = float((scored.reward_QGR[:, 0, 0].cpu() * counts).sum())
        means.add_sum("validation_accuracy", right, float(counts.sum()))


def is_stopped(session: Session) -> bool:
    """Whether validation ends the run here: the main process has all metrics, and tells."""
    if session.config.stop is None:
        return False
    told = torch.tensor(float(session.log.is_stopped()), device=session.accelerator.device)
    return bool(session.add_up(told))


def make_method(inputs: TrainingInputs, session: Session) -> Method[Any]:
    """GRPO or supervised fine-tuning."""
    if inputs.config.method == "sft":
        return SftStep(session)
    reference = None
    if inputs.reference is not None:
        reference = Policy(inputs.reference).to(session.accelerator.device)
        share(session.accelerator, [*reference.parameters(), *reference.buffers()])
    return GrpoStep(session, reference)


def make_draws(inputs: TrainingInputs, steps_done: int) -> Draws:
    """The order of the run, from the first draw that the next step needs."""
    config = inputs.config
    reuse = config.grpo.steps_per_rollout if config.method == "grpo" else 1
    return Draws(
        inputs.examples,
        inputs.processor,
        config,
        num_draws=config.max_steps * config.prompts_per_step,
        start=steps_done // reuse * config.prompts_per_step,
    )


def clip_gradients(session: Session) -> Tensor:
    """Scale the gradients down to the largest norm allowed; returns the norm before."""
    norm: Any = session.accelerator.clip_grad_norm_(
        session.policy.parameters(), session.config.max_grad_norm
    )
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # sharded: a DTensor


def refuse_if_not_finite(
    inputs: TrainingInputs, step: int, what: str, number: Tensor, parts: Sequence[MicroBatch]
) -> None:
    """Stop the run before a number that is none reaches the weights.

    Raises:
        PipelineError: If so; names the examples and the last good checkpoint.
    """
    if bool(torch.isfinite(number)):
        return
    last = checkpoints.last_step(inputs.output)
    kept = (
        "no checkpoint was written yet"
        if last is None
        else f"the last good checkpoint is checkpoint-{last}"
    )
    ids = ", ".join(name for part in parts for name in part.ids)
    msg = (
        f"{what} {float(number.detach())} at step {step}, in the batch with the examples {ids}; "
        f"{kept}. Lower the learning rate, or look at these examples, before going on"
    )
    raise PipelineError(msg)


def refuse_other_steps(accelerator: Accelerator, steps_done: int) -> None:
    """All processes go on from one checkpoint: a shared disk may show a new one late."""
    here = torch.tensor([steps_done], device=accelerator.device)
    steps = set(cast("Tensor", accelerator.gather(here)).tolist())
    if len(steps) > 1:
        msg = f"the processes see different newest checkpoints, of the steps {sorted(steps)}"
        raise RuntimeError(msg)  # another try may see the same
