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

import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from pydantic import JsonValue
from torch import Tensor, nn
from transformers import PrinterCallback, Qwen2AudioProcessor, Trainer

from model.config import TrainConfig
from model.network.features import Batch
from model.network.lora import without_adapter
from model.network.qwen2_audio import PackedQwen2Audio
from model.train import checkpoints
from model.train.examples import Collator, Draws
from model.train.flops import operations, peak_operations_per_s
from model.train.sizes import ModelSizes
from model.train.step_log import Means, StepLog, Stopwatch
from model.train.training_arguments import (
    keep_log_probabilities_exact,
    own_optimizer,
    training_arguments,
)
from storage.errors import PipelineError
from storage.records.training import StepMetrics, metrics_of

# Written by transformers: a pickle with this machine's paths, and the sharded weights once more.
NEEDLESS_FILES = ("training_args.bin", "pytorch_model_fsdp.bin")
# Sums of a step that are shown as a speed, not as a mean.
COUNTS = ("prompt_tokens", "predicted_tokens", "encoder_positions")


class Materials(NamedTuple):
    """What a trainer works on."""

    config: TrainConfig
    """Settings of the training."""
    settings: Mapping[str, JsonValue]
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
            optimizer_cls_and_kwargs=own_optimizer(materials.config),
        )
        self.remove_callback(PrinterCallback)
        keep_log_probabilities_exact(self.accelerator)
        self.step_log = StepLog(
            materials.output,
            max_steps=self.config.max_steps,
            every_s=self.config.progress_every_s,
        )
        self.watch = Stopwatch(self.args.device)
        self.means = Means()
        self._step_began = 0.0
        self._optimiser_began = 0.0
        self._latest: StepMetrics | None = None
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
        self._refuse_other_steps(step)
        self._logged_step = step
        self._random_state_of = resume_from
        if self.args.should_save:
            self.step_log.forget_after(step)
        self._step_began = self.watch.now()
        self.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))

    def _refuse_other_steps(self, step: int) -> None:
        """All processes go on from one checkpoint: a shared disk may show a new one late."""
        if self.args.world_size == 1:
            return
        here = torch.tensor([step], device=self.args.device)
        steps = set(cast("Tensor", self.accelerator.gather(here)).tolist())
        if len(steps) > 1:
            msg = f"the processes see different newest checkpoints, of the steps {sorted(steps)}"
            raise RuntimeError(msg)  # another try may see the same

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
        metrics = metrics_of(
            {
                "step": self.state.global_step,
                **means,
                "loss": totals["loss"],
                "grad_norm": None if grad_norm is None else float(grad_norm),
                "learning_rate": learning_rate,
                "seconds": {name: round(s, 4) for name, s in self.watch.seconds.items()}
                | {"total": round(seconds, 4)},
                "tokens_per_second": counts["predicted_tokens"] / seconds,
                **self._utilisation(counts, seconds),
                "peak_memory_bytes": peak_memory_bytes(self.args.device),
            }
        )
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
        flat = {} if self._latest is None else self._latest.trackable()
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
            for needless in NEEDLESS_FILES:
                (folder / needless).unlink(missing_ok=True)
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


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory used so far: of the GPU by tensors, of a CPU process by everything."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts KiB
