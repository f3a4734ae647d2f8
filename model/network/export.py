"""A model's folder as others load it: `python -m model.network.export MODEL FOLDER bf16 [OMNI]`.

FOLDER gets the model, adapters merged, with its processor. With OMNI, a folder or the name of a
whole Omni checkpoint, it gets a copy of that one in which the thinker's weights are MODEL's, under
the copy's names and with its dtypes; vision tower and talker stay as they were.
"""

import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.config import Precision
from model.network.family import family_of_network
from model.network.loading import load_model, load_processor
from storage.errors import PipelineError

THINKER = "thinker."  # begins the names of its weights in a whole Omni
UNTRAINED = "visual."  # a stump of it is left in the model


def export(model: str, folder: Path, precision: Precision, omni: str | None) -> None:
    """Write a model with its processor, as transformers does, or into a copy of a whole Omni.

    Raises:
        PipelineError: If the Omni's thinker has other weights than the model.
    """
    loaded, processor = load_model(model, precision=precision), load_processor(model)
    if omni is None:
        loaded.save_pretrained(folder)
        processor.save_pretrained(folder)
        return
    if len(family_of_network(loaded).model_types) == 1:
        msg = f"{model} is no thinker of an Omni, so it cannot be put back into {omni}"
        raise PipelineError(msg)
    whole = Path(omni) if Path(omni).is_dir() else Path(snapshot_download(omni))
    with tempfile.TemporaryDirectory(dir=folder.parent) as thinker:
        loaded.save_pretrained(thinker)
        trained = {
            name.removeprefix(THINKER): tensor
            for file in Path(thinker).glob("*.safetensors")
            for name, tensor in load_file(file).items()
        }
    del loaded
    put_back(trained, whole, folder)


def put_back(trained: Mapping[str, Tensor], whole: Path, folder: Path) -> None:
    """Copy a whole Omni's folder, with other weights in its thinker."""
    left = {name for name in trained if not name.startswith(UNTRAINED)}
    folder.mkdir()
    for file in sorted(path for path in whole.iterdir() if path.is_file()):
        if file.suffix != ".safetensors":
            shutil.copy(file, folder / file.name)
            continue
        weights = load_file(file)
        for name, old in list(weights.items()):
            inner = name.removeprefix(THINKER)
            if not name.startswith(THINKER) or inner.startswith(UNTRAINED):
                continue
            if inner not in left or trained[inner].shape != old.shape:
                msg = f"{whole} has a {name} of shape {list(old.shape)}, the model has none such"
                raise PipelineError(msg)
            left.remove(inner)
            weights[name] = trained[inner].to(old.dtype).contiguous()
        save_file(weights, folder / file.name, metadata={"format": "pt"})
    if left:
        msg = f"{whole} has no place for {len(left)} of the model's weights, e.g. {min(left)}"
        raise PipelineError(msg)


def main(model: str, folder: str, precision: Precision, omni: str | None = None) -> int:
    """Export; an expected failure is one line."""
    try:
        with torch.no_grad():
            export(model, Path(folder), precision, omni)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  a command
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))  # pyright: ignore[reportArgumentType]  checked by flows.export
