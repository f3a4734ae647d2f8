"""What a run leaves: checkpoints, written whole or not at all, and how far the model moved."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

from model import checkpoints
from model.config import PartName, idle_settings
from model.network.family import family_of_network, part_of
from model.network.loading import load_model
from model.network.policy import PREFIX
from model.train.session import Session
from model.training_record import TrainingRun, card_text
from storage.jsonl import write_json, write_text


def save_checkpoint(session: Session, step: int) -> None:
    """Write a checkpoint beside its place, then move it there when it is whole."""
    accelerator, run = session.accelerator, session.run
    folder = run.output / checkpoints.SAVING / f"checkpoint-{step}"
    if accelerator.is_main_process:
        checkpoints.discard_unfinished(run.output)
        folder.mkdir(parents=True)
    accelerator.wait_for_everyone()
    with checkpoints.naming_a_full_disk(folder):
        _save_weights(session, folder)
        _save_optimizer(session, folder)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            session.processor.save_pretrained(folder)
            kept, dropped, _ = session.checked
            card = card_text(run, step, num_examples=len(kept), num_dropped=len(dropped))
            (folder / "README.md").write_text(card, encoding="utf-8")
            others = idle_settings(run.config) | {"num_devices": accelerator.num_processes}
            checkpoints.publish(folder, run, made_with=others)
    accelerator.wait_for_everyone()


def _save_weights(session: Session, folder: Path) -> None:
    """All processes take part, here and below: they gather what is sharded."""
    accelerator = session.accelerator
    weights: Any = accelerator.get_state_dict(session.policy)
    if not accelerator.is_main_process:
        return
    network: Any = session.unwrapped.network
    named = {name.removeprefix(PREFIX): tensor for name, tensor in weights.items()}
    if accelerator.mixed_precision == "bf16" and not isinstance(network, PeftModel):
        network.save_pretrained(str(folder / checkpoints.MASTERS), state_dict=named)
        named = {name: tensor.to(torch.bfloat16) for name, tensor in named.items()}
    network.save_pretrained(str(folder), state_dict=named)
    if (folder / checkpoints.MASTERS).is_dir():
        told = (folder / "config.json").read_text(encoding="utf-8")  # the masters' type
        write_text(folder / "config.json", told.replace('"float32"', '"bfloat16"'))


def _save_optimizer(session: Session, folder: Path) -> None:
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_optimizer_state_dict(session.policy, session.optimizer, options=options)
    if session.accelerator.is_main_process:
        torch.save(state, folder / checkpoints.OPTIMIZER)


def report_movement(run: TrainingRun, trained: Path) -> None:
    """Write movement.json: how far each part of the model has moved from the start.

    Both models are compared on the CPU, adapters merged; needs memory for both. Of each part: the
    share of its weights that are not bit for bit what they were, and the norm of the change over
    that of the start, about 1e-5 at the paper's learning rate. 0 for a part that should have
    learned says that its updates vanished in rounding or that it was frozen.
    """
    precision = run.config.precision
    before = dict(load_model(run.start_model, precision=precision).named_parameters())
    model = load_model(trained, precision=precision)
    family = family_of_network(model)
    sums: dict[PartName, Tensor] = defaultdict(lambda: torch.zeros(4, dtype=torch.float64))
    for name, weight in model.named_parameters():
        part = part_of(name, family)
        if part is None:
            continue
        old = before.pop(name).detach()
        change = weight.detach().float() - old.float()
        numbers = (weight.numel(), (change != 0).sum(), (change**2).sum(), (old.float() ** 2).sum())
        sums[part] += torch.tensor([float(number) for number in numbers]).double()
    movement: dict[str, dict[str, float]] = {}
    for part, (number, moved, change, norm) in sums.items():
        share, relative = float(moved / number), float((change / norm).sqrt())
        named = {"num_parameters": int(number), "moved_share": share, "relative_change": relative}
        movement[part] = named
        print(  # noqa: T201  the log of the training
            f"{part}: {share:.1%} of {int(number):,} weights moved, by {relative:.2g} of their norm"
        )
    write_json(run.output / "movement.json", movement)
