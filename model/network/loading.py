"""Models and processors from a folder or the hub, whatever their family."""

from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor
from transformers import (
    AutoConfig,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)

from model.config import Attention, Precision
from model.network.family import Family, family_of, family_of_network, known_families, part_of
from model.network.packed import BY_MASK
from storage.errors import PipelineError
from storage.records.training import base_of
from storage.text import one_line


def read_config(name: str | Path) -> tuple[Family, PretrainedConfig]:
    """The family of a model in a folder or on the hub, and its network's config.

    Raises:
        PipelineError: If there is no config, or the model is of no family that is known here.
    """
    expected = f"expected a model of {', '.join(sorted(known_families()))}"
    while base := base_of(name):
        name = base
    try:
        model_type = PretrainedConfig.get_config_dict(str(name))[0].get("model_type", "nameless")
        family = family_of(model_type)
        if family is None:
            msg = f"{name} is a {model_type} model, which cannot be used here: {expected}"
            raise PipelineError(msg)
        return family, family.network_config(AutoConfig.from_pretrained(str(name)))
    except (OSError, ValueError) as error:
        msg = f"the model {name} cannot be loaded ({one_line(error)}): {expected}"
        raise PipelineError(msg) from error


def load_processor(name: str | Path) -> ProcessorMixin:
    """Load tokenizer, feature extractor and chat template from a folder or the hub.

    Raises:
        PipelineError: If there is none, or its audio token is not the model's.
    """
    family, config = read_config(name)
    while not list(Path(name).glob("*processor_config.json")) and (base := base_of(name)):
        name = base  # another tool's adapter has none
    remedy = "use the processor that was saved with the model"
    try:
        processor = family.processor.from_pretrained(str(name))
    except (OSError, ValueError, TypeError) as error:
        msg = f"{name} has no processor that can be loaded ({one_line(error)}): {remedy}"
        raise PipelineError(msg) from error
    found = processor.tokenizer.get_vocab().get(family.audio_token)
    wanted = config.audio_token_id  # pyright: ignore[reportAttributeAccessIssue]  every family's
    if found is None or found != wanted:
        msg = (
            f"the tokenizer of {name} gives {family.audio_token} the id {found}, its config.json "
            f"says {wanted}: the model would not hear; {remedy}"
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
    is_empty: bool = False,
) -> PreTrainedModel:
    """Load a model in evaluation mode, a LoRA adapter merged into its base; what is idle is frozen.

    Args:
        name: Folder or hub name.
        precision: `bf16` loads bf16 weights; `fp32` and `bf16-mixed` load fp32.
        attention: Of the packed pass.
        device: To move it to.
        is_empty: Read no weights, as another process will give them; what was never written to
            takes no memory.

    Raises:
        PipelineError: If it cannot be loaded or is of no known family; says what was found.
    """
    base = base_of(name)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    if is_empty:
        model = _empty(name, dtype)
    elif base is None:
        model = _load(name, dtype)
    else:
        below = load_model(base, precision=precision)
        adapted: Any = PeftModel.from_pretrained(below, str(name)).merge_and_unload()
        model = cast("PreTrainedModel", adapted)
    idle = family_of_network(model).idle
    for parameter_name, parameter in model.named_parameters():
        parameter.requires_grad = not parameter_name.startswith(idle)
    if attention == "flex":
        inner: Any = model
        inner.model.language_model.set_attn_implementation(BY_MASK)
    model.to(torch.device(device))  # pyright: ignore[reportArgumentType]  transformers' wrapper hides the overloads
    return model.eval()


def _load(name: str | Path, dtype: torch.dtype) -> PreTrainedModel:
    family, config = read_config(name)
    try:
        loaded: Any = family.network.from_pretrained(
            str(name),
            config=config,
            dtype=dtype,
            attn_implementation="sdpa",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, where they are of a part
        )
    except (OSError, ValueError) as error:
        msg = f"the model {name} cannot be loaded ({one_line(error)})"
        raise PipelineError(msg) from error
    model, loading = cast("tuple[PreTrainedModel, dict[str, set[Any]]]", loaded)
    mismatched = {key for key, *_shapes in loading["mismatched_keys"]}
    absent = sorted(
        key for key in loading["missing_keys"] | mismatched if part_of(key, family) is not None
    )
    if absent:
        msg = (
            f"{name} lacks {len(absent)} of the model's weights ({', '.join(absent[:3])}, ...): "
            "they would be random; the folder is incomplete, get it again"
        )
        raise PipelineError(msg)
    return model


def _empty(name: str | Path, dtype: torch.dtype) -> PreTrainedModel:
    while base := base_of(name):
        name = base
    family, config = read_config(name)
    with torch.device("meta"):
        build = family.network._from_config  # noqa: SLF001  nothing public takes a type
        model = build(config, dtype=dtype, attn_implementation="sdpa")
    model.to_empty(device="cpu")
    model.tie_weights()
    with suppress(OSError):  # one that has none is told by its config
        model.generation_config = GenerationConfig.from_pretrained(str(name))
    return model


def stop_tokens(model: PreTrainedModel, processor: ProcessorMixin) -> Tensor:
    """Ids that end a completion: the tokenizer's and all that the model names, int64, sorted.

    Which one an instruct model emits differs by release (`<|im_end|>` or `<|endoftext|>`), so all
    of them count.
    """
    generation_config, tokenizer = model.generation_config, processor.tokenizer
    named = None if generation_config is None else generation_config.eos_token_id
    ids = set(named if isinstance(named, list) else [named]) | {tokenizer.eos_token_id}
    ids |= {tokenizer.get_vocab().get(token) for token in family_of_network(model).stop_tokens}
    return torch.tensor(sorted(i for i in ids if i is not None), dtype=torch.long)
