"""The training loop on transformers.Trainer, and what GRPO and supervised fine-tuning share of it.

From the library: schedules, mixed precision, DDP and FSDP, clipping, TensorBoard and W&B. Changed
here:

- An optimiser step is prepared as a whole (`prepare_step`) before its micro-batches are run, so
  that the loss of all micro-batches and devices adds up to that of one large batch.
- Weights are loaded before the trainer is made, also on a resume, and the data set starts at the
  position of the resumed step, so nothing is skipped by drawing it.
- A checkpoint is written under another name and renamed when whole (see checkpoints.py).
- A loss or gradient that is not a number stops the run before the optimiser sees it.
"""

import os
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import PrinterCallback, Qwen2AudioProcessor, Trainer, TrainingArguments

from model import checkpoints
from model.config import TrainConfig
from model.examples import Collator, Draws
from model.features import Batch
from model.lora import without_adapter
from model.qwen2_audio import PackedQwen2Audio
from model.sizes import ModelSizes
from model.step_log import Means, StepLog, Stopwatch
from model.work import operations, peak_operations_per_s
from storage.errors import PipelineError

# Sums of a step that are shown as a speed, not as a mean.
COUNTS = ("prompt_tokens", "predicted_tokens", "encoder_positions")


class Materials(NamedTuple):
    """What a trainer works on."""

    config: TrainConfig
    """Settings of the training."""
    settings: Mapping[str, object]
    """The settings that a resumed run must share, kept in every checkpoint."""
    output: Path
    """Folder of the training."""
    model: nn.Module
    """The policy: a `PackedQwen2Audio`, or peft's wrapper of one."""
    processor: Qwen2AudioProcessor
    """Of the model."""
    draws: Draws
    """The data, from the position of the first step to do."""
    stop_ids: Tensor
    """Token ids that end a completion."""
    sizes: ModelSizes
    """Of the model, to count its work."""
    card: Callable[[int], str]
    """The model card of a step's checkpoint."""


class StepTrainer(Trainer):
    """A trainer whose steps are prepared as a whole, logged to a file, and saved by rename."""

    loss_is_scaled_for_ga = True

    def __init__(self, materials: Materials, collator: Collator) -> None:
        """Make the trainer; `fit` runs it."""
        self.materials = materials
        self.config = materials.config
        super().__init__(
            model=materials.model,
            args=training_arguments(materials.config, materials.output),
            train_dataset=materials.draws,
            data_collator=collator,
            optimizer_cls_and_kwargs=_own_optimizer(materials.config),
        )
        self.remove_callback(PrinterCallback)
        _keep_log_probabilities_exact(self.accelerator)
        self.step_log = StepLog(
            materials.output,
            max_steps=self.config.max_steps,
            every_s=self.config.progress_every_s,
        )
        self.watch = Stopwatch(self.args.device)
        self.means = Means()
        self._step_began = 0.0
        self._logged_step = 0
        self._run_folder = materials.output
        self._random_state_of: Path | None = None

    def fit(self, resume_from: Path | None) -> None:
        """Train to the last step.

        Args:
            resume_from: Whole checkpoint whose optimiser, scheduler and random state to take; None:
                from the start.
        """
        step = 0 if resume_from is None else checkpoints.step_of(resume_from)
        self._logged_step = step
        self._random_state_of = resume_from
        if self.args.should_save:
            self.step_log.forget_after(step)
        self._step_began = self.watch.now()
        self.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))

    @property
    def policy(self) -> PackedQwen2Audio:
        """The model itself, without wrappers: for rollouts."""
        return without_adapter(self.accelerator.unwrap_model(self.model))

    def prepare_step(self, batches: Sequence[dict[str, Any]]) -> None:
        """Make the micro-batches of one optimiser step from the drawn batches."""
        raise NotImplementedError

    def micro_batch_loss(self, model: nn.Module, index: int) -> Tensor:
        """This micro-batch's part of the step's loss, which is a sum over all of them."""
        raise NotImplementedError

    def step_metrics(self) -> dict[str, object]:
        """Further metrics of the finished step, from this device alone."""
        return {}

    def micro_batch_ids(self, index: int) -> list[str]:
        """Ids of the examples in a micro-batch."""
        raise NotImplementedError

    def add_up(self, number: Tensor) -> Tensor:
        """The sum of a tensor over all devices."""
        return cast("Tensor", self.accelerator.reduce(number, reduction="sum"))

    # From here on: methods of transformers.Trainer.

    def get_batch_samples(
        self,
        epoch_iterator: Iterator[Any],
        num_batches: int,
        device: torch.device,
    ) -> tuple[list[Any], None]:
        """Draw the batches of one optimiser step and prepare them; only their numbers go on."""
        del device
        if self.needs_batches():
            with self.watch.phase("features"):
                batches = [next(epoch_iterator) for _ in range(num_batches)]
            self._restore_random_state()
            self.prepare_step(batches)
        return [{"micro_batch": index} for index in range(num_batches)], None

    def needs_batches(self) -> bool:
        """Whether this step draws batches of its own."""
        return True

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: FBT001, FBT002  transformers' signature
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The loss of one micro-batch; refuses what is not a number."""
        del return_outputs, num_items_in_batch
        index = int(inputs["micro_batch"])
        loss = self.micro_batch_loss(model, index)
        if not bool(torch.isfinite(loss)):
            self._stop(f"the loss is {float(loss)}", self.micro_batch_ids(index))
        # Devices' gradients are averaged, but each loss is a part of one sum.
        return loss * self.args.world_size

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401  passed on
        """Forward and backward of one micro-batch, timed."""
        with self.watch.phase("policy"):
            loss = super().training_step(*args, **kwargs)
        self.means.add_sum("loss", float(loss) / self.args.world_size, 0)
        self._optimiser_began = self.watch.now()
        return loss

    def _clip_grad_norm(self, model: nn.Module) -> Any:  # noqa: ANN401  transformers' signature
        norm: Any = super()._clip_grad_norm(model)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # sharded: a DTensor
        if not bool(torch.isfinite(torch.as_tensor(norm))):
            ids = [
                i for n in range(self.config.gradient_accumulation) for i in self.micro_batch_ids(n)
            ]
            self._stop(f"the gradient's norm is {float(norm)}", ids)
        return norm

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted here: transformers' formula does not know packed batches."""
        del inputs
        return 0

    def _maybe_log_save_evaluate(
        self,
        tr_loss: Tensor,
        grad_norm: Tensor | float | None,
        *args: Any,  # noqa: ANN401  passed on
        **kwargs: Any,  # noqa: ANN401  passed on
    ) -> None:
        if self.state.global_step > self._logged_step:
            self._logged_step = self.state.global_step
            self.watch.seconds["optimiser"] += self.watch.now() - self._optimiser_began
            self._log_step(grad_norm, kwargs.get("learning_rate"))
            super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, **kwargs)
            self._step_began = self.watch.now()

    def _log_step(self, grad_norm: Tensor | float | None, learning_rate: float | None) -> None:
        sums = self.means.as_tensor()
        if self.args.world_size > 1:
            sums = self.add_up(sums.to(self.args.device)).cpu()
        means = self.means.means(sums)
        totals = dict(zip(self.means.names(), sums[:, 0].tolist(), strict=True))
        seconds = self.watch.now() - self._step_began
        counts = {name: totals.get(name, 0.0) for name in COUNTS}
        for name in COUNTS:
            means.pop(name, None)
        metrics: dict[str, object] = {
            "step": self.state.global_step,
            **means,
            "loss": totals["loss"],
            "grad_norm": None if grad_norm is None else float(grad_norm),
            "learning_rate": learning_rate,
            **self.step_metrics(),
            "seconds": {name: round(s, 4) for name, s in self.watch.seconds.items()}
            | {"total": round(seconds, 4)},
            "tokens_per_second": counts["predicted_tokens"] / seconds,
            **self._utilisation(counts, seconds),
            "peak_memory_bytes": peak_memory_bytes(self.args.device),
        }
        self._latest = metrics
        if self.args.should_save:
            self.step_log.write_metrics(metrics)
        self.means = Means()
        self.watch.seconds.clear()

    def _utilisation(self, counts: Mapping[str, float], seconds: float) -> dict[str, float]:
        """Share of the GPUs' peak speed (MFU), where that is known."""
        if self.args.device.type != "cuda":
            return {}
        peak = peak_operations_per_s(torch.cuda.get_device_name(self.args.device))
        if peak is None:
            return {}
        has_rollout = self.config.method == "grpo"
        num_forwards = has_rollout + (has_rollout and self.config.grpo.beta > 0)
        needed = operations(
            self.materials.sizes,
            text_tokens=counts["prompt_tokens"] + counts["predicted_tokens"],
            predicted_tokens=counts["predicted_tokens"],
            encoder_positions=counts["encoder_positions"],
            num_forwards=num_forwards,
        )
        return {"mfu": needed / seconds / (peak * self.args.world_size)}

    def count_work(self, prompt: Batch, completion_mask: Tensor) -> None:
        """Take down the tokens of a micro-batch."""
        self.means.add_sum("prompt_tokens", float(prompt["prompt_mask"].sum()), 1)
        self.means.add_sum("predicted_tokens", float(completion_mask.sum()), 1)
        self.means.add_sum("encoder_positions", float(prompt["num_frames"].sum()) / 2, 1)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Send a step's metrics to TensorBoard and W&B."""
        flat = {key: value for key, value in self._latest.items() if isinstance(value, float)}
        phases = cast("dict[str, float]", self._latest["seconds"])
        flat.update({f"seconds/{name}": value for name, value in phases.items()})
        super().log({**logs, **flat}, start_time)

    def _get_output_dir(self, trial: Any) -> str:  # noqa: ANN401  transformers' signature
        del trial
        return str(self._run_folder)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:  # noqa: ANN401  transformers' signature
        """Write the checkpoint beside its place, then move it there when it is whole."""
        output = self.materials.output
        self._run_folder = output / checkpoints.SAVING
        if self.args.should_save:
            checkpoints.discard_unfinished(output)
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            folder = self._run_folder / f"checkpoint-{self.state.global_step}"
            self.materials.processor.save_pretrained(folder)
            (folder / "training_args.bin").unlink(
                missing_ok=True
            )  # a pickle with this machine's paths
            card = self.materials.card(self.state.global_step)
            (folder / "README.md").write_text(card, encoding="utf-8")
            checkpoints.seal(folder, self.materials.settings)
            checkpoints.publish(folder, output)
            checkpoints.discard_unfinished(output)
            checkpoints.strip_old(output, keep_full=self.config.keep_full_checkpoints)
        self.accelerator.wait_for_everyone()
        self._run_folder = output

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        """Nothing to do: the model was loaded from the checkpoint before the trainer was made."""

    def _restore_random_state(self) -> None:
        """Take a resumed run's random state after the data loader has drawn its seed."""
        if self._random_state_of is not None:
            self._load_rng_state(str(self._random_state_of))
            self._random_state_of = None

    def _stop(self, what: str, ids: Sequence[str]) -> None:
        last = checkpoints.last_step(self.materials.output)
        kept = (
            "no checkpoint was written yet"
            if last is None
            else f"the last good checkpoint is checkpoint-{last}"
        )
        msg = (
            f"{what} at step {self.state.global_step + 1}, in the batch with the examples "
            f"{', '.join(ids)}; {kept}. Lower the learning rate, or look at these "
            "examples, before going on"
        )
        raise PipelineError(msg)


def training_arguments(config: TrainConfig, output: Path) -> TrainingArguments:
    """The settings in transformers' words."""
    rate = config.grpo.learning_rate if config.method == "grpo" else config.sft.learning_rate
    on_gpu = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(output),
        max_steps=config.max_steps,
        per_device_train_batch_size=config.prompts_per_device,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=rate,
        lr_scheduler_type=config.lr_scheduler,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=config.precision == "bf16-mixed",
        use_cpu=not on_gpu,
        ddp_backend=("nccl" if on_gpu else "gloo") if world_size() > 1 else None,
        ddp_find_unused_parameters=False,
        activation_checkpointing=config.gradient_checkpointing,
        fsdp_config=_sharding(config),
        fsdp=_sharding(config) is not None,  # pyright: ignore[reportArgumentType]  its docs ask for a bool
        use_cache=True,  # goes into the saved config; training passes it by hand
        seed=config.seed,
        data_seed=config.seed,
        train_sampling_strategy="sequential",  # the data set has its own order
        ignore_data_skip=True,  # the data set starts at the resumed step
        dataloader_num_workers=config.dataloader_workers,
        dataloader_prefetch_factor=4 if config.dataloader_workers else None,
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
        save_strategy="steps",
        save_steps=config.save_steps,
        logging_strategy="steps" if config.report_to else "no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=list(config.report_to) or "none",
        run_name=config.name,
        disable_tqdm=True,
        average_tokens_across_devices=False,
    )


def _sharding(config: TrainConfig) -> dict[str, Any] | None:
    """FSDP2's settings; None on one device, where there is nothing to split."""
    if config.sharding == "none" or world_size() == 1:
        return None
    return {
        "version": 2,
        "transformer_layer_cls_to_wrap": ["Qwen2AudioEncoderLayer", "Qwen2DecoderLayer"],
        "reshard_after_forward": config.sharding == "fsdp",
        "state_dict_type": "FULL_STATE_DICT",
    }


def _keep_log_probabilities_exact(accelerator: Accelerator) -> None:
    """Undo accelerate's choice for bf16: FSDP would round outputs and gradient sums to it."""
    plugin: Any = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is not None and plugin.mixed_precision_policy is not None:
        plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=None
        )


def world_size() -> int:
    """Training processes, as torchrun tells each of them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process writes the files."""
    return os.environ.get("RANK", "0") == "0"


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory used so far: of the GPU by tensors, of a CPU process by everything."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts KiB


def _own_optimizer(
    config: TrainConfig,
) -> tuple[type[torch.optim.Optimizer], dict[str, Any]] | None:
    """An optimiser that transformers does not know by name; None: it makes AdamW itself."""
    if config.optimizer == "adamw":
        return None
    from torchao.optim import AdamW8bit  # noqa: PLC0415  prints about missing CUDA files on import

    rate = config.grpo.learning_rate if config.method == "grpo" else config.sft.learning_rate
    return AdamW8bit, {
        "lr": rate,
        "weight_decay": config.weight_decay,
        "bf16_stochastic_round": True,
    }
