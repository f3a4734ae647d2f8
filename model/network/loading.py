"""Models and processors from a folder or the hub, whatever their family."""

import json
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoConfig, AutoProcessor, PreTrainedModel, Qwen2AudioProcessor

from model.config import Attention, Precision
from model.network.family import family_of, known_families
from model.network.packed import BY_MASK
from storage.errors import PipelineError

EXPECTED = "give the folder or the hub name of a Qwen2-Audio model"


def load_processor(name: str | Path) -> Qwen2AudioProcessor:
    """Load tokenizer, feature extractor and chat template from a folder or the hub.

    Raises:
        PipelineError: If there is none, or it has no audio token.
    """
    try:
        processor = AutoProcessor.from_pretrained(str(name))
    except (OSError, ValueError) as error:
        msg = f"{name} has no processor that can be loaded ({error}): {EXPECTED}"
        raise PipelineError(msg) from error
    audio_token = getattr(processor, "audio_token", None)
    known = audio_token is not None and audio_token in processor.tokenizer.get_vocab()
    if not known:
        msg = (
            f"the processor of {name} ({type(processor).__name__}) has no audio token in its "
            "vocabulary: expected Qwen2-Audio's <|AUDIO|>; use the processor that was saved with "
            "the model"
        )
        raise PipelineError(msg)
    processor.tokenizer.padding_side = "left"
    return processor


def load_model(
    name: str | Path,
    *,
    precision: Precision,
    attention: Attention = "sdpa",
    device: torch.device | str = "cpu",
) -> PreTrainedModel:
    """Load a model in evaluation mode; a LoRA adapter is merged into its base.

    Args:
        name: Folder or hub name.
        precision: `bf16` loads bf16 weights; `fp32` and `bf16-mixed` load fp32.
        attention: Of the packed pass.
        device: Where the weights go.

    Raises:
        PipelineError: If it cannot be loaded or is of no known family; says what was found.
    """
    adapter = Path(name) / "adapter_config.json"
    if adapter.is_file():
        base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
        adapted = PeftModel.from_pretrained(
            load_base(base, precision=precision, attention=attention), str(name)
        )
        model = cast("PreTrainedModel", adapted.merge_and_unload())
    else:
        model = load_base(name, precision=precision, attention=attention)
    model.to(torch.device(device))  # pyright: ignore[reportArgumentType]  transformers' wrapper hides the overloads
    return model.eval()


def load_base(
    name: str | Path, *, precision: Precision, attention: Attention = "sdpa"
) -> PreTrainedModel:
    """Load a model without adapters onto the CPU; what its family calls idle is frozen."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    try:
        config = AutoConfig.from_pretrained(str(name))
        family = family_of(config.model_type)
        if family is None:
            known = " or ".join(known_families())
            msg = f"{name} is a {config.model_type} model, expected {known}: {EXPECTED}"
            raise PipelineError(msg)
        loaded: Any = family.network.from_pretrained(
            str(name), dtype=dtype, attn_implementation="sdpa", output_loading_info=True
        )
    except (OSError, ValueError) as error:
        msg = f"the model {name} cannot be loaded ({error}): {EXPECTED}"
        raise PipelineError(msg) from error
    model, loading = cast("tuple[PreTrainedModel, dict[str, set[Any]]]", loaded)
    absent = sorted([*loading["missing_keys"], *map(str, loading["mismatched_keys"])])
    if absent:
        msg = (
            f"{name} lacks {len(absent)} of the model's weights ({', '.join(absent[:3])}, ...): "
            "they would be random; the folder is incomplete, get it again"
        )
        raise PipelineError(msg)
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.startswith(family.idle):
            parameter.requires_grad = False
    if attention == "flex":
        inner: Any = model
        inner.model.language_model.set_attn_implementation(BY_MASK)
    return model


def stop_tokens(model: PreTrainedModel, processor: Qwen2AudioProcessor) -> Tensor:
    """Ids that end a completion: the tokenizer's and all that the model names, int64, sorted.

    Which one an instruct model emits differs by release (`<|im_end|>` or `<|endoftext|>`), so all
    of them count.
    """
    generation_config = model.generation_config
    named = None if generation_config is None else generation_config.eos_token_id
    ids = set(named if isinstance(named, list) else [named]) | {processor.tokenizer.eos_token_id}
    return torch.tensor(sorted(i for i in ids if i is not None), dtype=torch.long)
