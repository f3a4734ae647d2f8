"""Entry point of what needs torch for a moment: `python -m model.run_network COMMAND FILE`.

COMMAND is `tiny` (write a small random model), `measure` (write a model's sizes) or `export` (a
model's folder as others load it: as plain transformers does, or back in its whole Omni); FILE holds
its arguments by name, as JSON.
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

from model.command import run_command
from model.config import Precision
from model.network.family import family_of_network
from model.network.loading import load_model, load_processor
from model.network.measure import write_sizes
from model.network.tiny import build_tiny
from storage.errors import PipelineError
from storage.jsonl import read_json

THINKER = "thinker."  # begins the names of its weights in a whole Omni
UNTRAINED = "visual."  # a stump of it is left in the model


def main(*arguments: str) -> int:
    """Run a command; an expected failure is one line and its exit code."""
    return run_command(
        arguments,
        "COMMAND FILE",
        lambda command, file: COMMANDS[command](**read_json(Path(file))),
    )


@torch.no_grad()
def export(model: str, folder: str, *, precision: Precision, omni: str | None = None) -> None:
    """Write a model, adapters merged, with its processor.

    Args:
        model: Folder.
        folder: To write; it is not there yet.
        precision: Of the weights.
        omni: Folder or hub name of a whole Omni checkpoint: a copy of it is written, in which the
            thinker's weights are the model's, under the copy's names and with its dtypes. Vision
            tower and talker stay as they were.

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
    with tempfile.TemporaryDirectory(dir=Path(folder).parent) as thinker:
        loaded.save_pretrained(thinker)
        trained = {
            name.removeprefix(THINKER): tensor
            for file in Path(thinker).glob("*.safetensors")
            for name, tensor in load_file(file).items()
        }
    del loaded
    put_back(trained, whole, Path(folder))


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


COMMANDS = {"tiny": build_tiny, "measure": write_sizes, "export": export}

if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
