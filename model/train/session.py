"""A run on one of its devices: what is loaded for it, and what its steps work with."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, ProcessorMixin, get_scheduler, set_seed
from transformers.trainer_pt_utils import get_parameter_names

from model import checkpoints
from model.config import Precision, TrainConfig
from model.network.family import family_of_network, freeze_parts
from model.network.loading import load_model, load_processor, stop_tokens
from model.network.measure import measure_config
from model.network.policy import Policy, add_adapter, load_adapter, name_base, without_adapter
from model.train.examples import Checked, Example, check_examples, read_examples
from model.train.order import Drawn, Draws, read_batches
from model.train.sharding import is_main_process, make_accelerator, share, share_weights
from model.train.step_log import StepLog, Stopwatch
from model.training_record import TrainingRun
from storage.errors import PipelineError
from storage.jsonl import write_jsonl
from storage.records.question import list_ids
from storage.records.sizes import ModelSizes

VALIDATION = "validation.jsonl"
# Parameters without weight decay, as transformers.Trainer chooses them.
UNDECAYED = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A run that is ready for its next step."""

    run: TrainingRun
    sizes: ModelSizes
    """Of the model, to count its work."""
    checked: Checked
    """What it learns from."""
    held_out: Sequence[Example]
    """What is asked at each checkpoint."""
    processor: ProcessorMixin
    stop_ids: Tensor
    accelerator: Accelerator
    policy: Policy
    """The network that learns, as accelerate has wrapped it: gradients are synchronised."""
    reference: Policy | None
    """The start model, frozen, on the device; None where beta is 0, or where the policy is a LoRA
    adapter, whose base with the adapter off is the reference."""
    optimizer: Optimizer
    scheduler: LambdaLR
    draws: Draws
    """The order of the whole run."""
    batches: Iterator[Drawn]
    """This process's micro-batches, from the first step to do."""
    log: StepLog
    watch: Stopwatch
    steps_done: int
    """Steps of the checkpoint that it goes on from."""

    @property
    def config(self) -> TrainConfig:
        """Its settings."""
        return self.run.config

    @property
    def unwrapped(self) -> Policy:
        """The policy without DDP: for what needs no gradient."""
        return self.accelerator.unwrap_model(self.policy)

    def draw(self) -> list[Drawn]:
        """The micro-batches of the next step, on this device."""
        num_passes = self.config.num_passes(self.accelerator.num_processes)
        with self.watch.phase("features"):
            return [next(self.batches).to(self.accelerator.device) for _ in range(num_passes)]

    def add_up(self, number: Tensor) -> Tensor:
        """The sum of a tensor over all devices."""
        return self.accelerator.reduce(number, reduction="sum")  # pyright: ignore[reportReturnType]  a tensor for a tensor


def open_session(run: TrainingRun, resume_from: Path | None) -> Session:
    """Load model and data, spread them over the devices, and take up a checkpoint's state."""
    config, output = run.config, run.output
    steps_done = 0 if resume_from is None else checkpoints.step_of(resume_from)
    set_seed(config.seed)
    processor = load_processor(run.start_model)
    adapted = _network(run, resume_from)
    network = without_adapter(adapted)
    checked = check_examples(
        read_examples(run.record.examples, config.example_repeats), processor, config
    )
    if is_main_process():
        write_jsonl(output / "dropped.jsonl", checked.dropped)
        _tell(run, checked, resume_from)
    held_out, reference = _held_out(run, processor), _reference(run)
    accelerator = make_accelerator(config, family_of_network(network).layers)
    refuse_other_steps(accelerator, steps_done)
    if config.gradient_checkpointing:
        network.activation_checkpointing_enable()
    policy = Policy(adapted)
    weights = policy.state_dict() if accelerator.is_main_process else {}
    optimizer = make_optimizer(policy, config)
    policy, optimizer = accelerator.prepare(policy, optimizer)
    share_weights(accelerator, policy, weights)
    if reference is not None:
        reference = reference.to(accelerator.device)
        share(accelerator, [*reference.parameters(), *reference.buffers()])
    draws = Draws(
        checked.kept,
        processor,
        config,
        num_draws=config.max_steps * config.prompts_per_step,
    )
    session = Session(
        run=run,
        sizes=measure_config(run.start_model),
        checked=checked,
        held_out=held_out,
        processor=processor,
        stop_ids=stop_tokens(network, processor),
        accelerator=accelerator,
        policy=policy,
        reference=reference,
        optimizer=optimizer,
        scheduler=make_scheduler(optimizer, config, steps_done),
        draws=draws,
        batches=read_batches(
            draws,
            config,
            start=steps_done // config.steps_per_rollout * config.prompts_per_step,
            pad_id=processor.tokenizer.pad_token_id,
            rank=accelerator.process_index,
            num_processes=accelerator.num_processes,
        ),
        log=StepLog(config, output, steps_done=steps_done, is_main=accelerator.is_main_process),
        watch=Stopwatch(accelerator.device),
        steps_done=steps_done,
    )
    if resume_from is not None:
        load_optimizer(session, resume_from)
    return session


def make_optimizer(policy: nn.Module, config: TrainConfig) -> Optimizer:
    """AdamW over what learns; biases and norms do not decay."""
    decayed = set(get_parameter_names(policy, [nn.LayerNorm], UNDECAYED))
    learning = [(name, p) for name, p in policy.named_parameters() if p.requires_grad]
    decaying = [parameter for name, parameter in learning if name in decayed]
    others = [parameter for name, parameter in learning if name not in decayed]
    groups: list[dict[str, Any]] = [
        {"params": decaying, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    rate = config.grpo.learning_rate if config.method == "grpo" else config.sft.learning_rate
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, fused=True)
    from torchao.optim import AdamW8bit  # noqa: PLC0415  prints about missing CUDA files on import

    return AdamW8bit(groups, lr=rate, bf16_stochastic_round=True)


def make_scheduler(optimizer: Optimizer, config: TrainConfig, steps_done: int) -> LambdaLR:
    """The course of the learning rate, from transformers, as it stands after some steps."""
    scheduler: Any = get_scheduler(
        config.lr_scheduler,
        optimizer,
        num_warmup_steps=config.warmup_steps,
        num_training_steps=config.max_steps,
    )
    with warnings.catch_warnings(action="ignore"):  # torch expects the optimiser's steps between
        for _ in range(steps_done):
            scheduler.step()
    return scheduler


def load_optimizer(session: Session, folder: Path) -> None:
    """Take up the optimiser of a checkpoint, whose weights are loaded, over any number of devices.

    The schedule, which says the learning rates, and every random draw follow from the step.
    """
    state: dict[str, Any] = {}
    if session.accelerator.is_main_process:
        state = torch.load(folder / checkpoints.OPTIMIZER, map_location="cpu", weights_only=True)
    is_shared = session.accelerator.num_processes > 1
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=is_shared)
    set_optimizer_state_dict(session.policy, session.optimizer, state, options=options)
    rates = session.scheduler.get_last_lr()
    for group, rate in zip(session.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def refuse_other_steps(accelerator: Accelerator, steps_done: int) -> None:
    """All processes go on from one checkpoint: a shared disk may show a new one late."""
    here = torch.tensor([steps_done], device=accelerator.device)
    steps = set(cast("Tensor", accelerator.gather(here)).tolist())
    if len(steps) > 1:
        msg = f"the processes see different newest checkpoints, of the steps {sorted(steps)}"
        raise RuntimeError(msg)  # another try may see the same


def _held_out(run: TrainingRun, processor: ProcessorMixin) -> list[Example]:
    """Questions to ask at each checkpoint, taken evenly over the file beside the examples."""
    number, file = run.config.validation_questions, run.record.examples.with_name(VALIDATION)
    if not number:
        return []
    if not file.exists():
        msg = (
            f"validation_questions is {number}, and there is no {file}: set annotations.validation"
        )
        raise PipelineError(msg)
    found = check_examples(read_examples(file), processor, run.config).kept
    number = min(number, len(found))
    return [found[index * len(found) // number] for index in range(number)]


def _reference(run: TrainingRun) -> Policy | None:
    """The start model, frozen."""
    config = run.config
    if not config.has_reference:
        return None
    precision = "bf16" if torch.cuda.is_available() and config.precision != "fp32" else "fp32"
    model = _load(config, run.start_model, precision).eval()
    return Policy(model.requires_grad_(requires_grad=False))


def _network(run: TrainingRun, resume_from: Path | None) -> nn.Module:
    """The model to train, from the start model or from the checkpoint."""
    config, weights = run.config, run.start_model
    if resume_from and config.lora is None:
        weights = checkpoints.masters_of(resume_from)
    base = _load(config, weights, config.precision)
    if config.lora is not None:
        model = load_adapter(base, resume_from) if resume_from else add_adapter(base, config.lora)
        return name_base(model, run.record.start, run.output.absolute())
    freeze_parts(base, config.freeze)
    return base


def _load(config: TrainConfig, weights: str | Path, precision: Precision) -> PreTrainedModel:
    """Only one process reads."""
    is_empty = not is_main_process()
    return load_model(weights, precision=precision, attention=config.attention, is_empty=is_empty)


def _tell(run: TrainingRun, checked: Checked, resume_from: Path | None) -> None:
    """Say what it learns from, and where from; the log of the training."""
    print(f"{len(checked.kept)} examples, {len(checked.dropped)} dropped")  # noqa: T201
    if checked.cut:
        ids = list_ids(checked.cut)
        print(f"{len(checked.cut)} clips are longer than the model hears; cut: {ids}")  # noqa: T201
    begin = "the start model"
    if run.record.is_start_rounded:
        begin += ", as evaluated: rounded to bf16"
    if resume_from is not None:
        begin = f"{resume_from.parent.name}/{resume_from.name}"
    if run.config.method == "grpo":
        begin += (
            "; a loss near 0 is expected (it is beta x KL while each rollout serves one step): "
            "watch the reward"
        )
    print(f"training from {begin}", flush=True)  # noqa: T201
