"""Which weights a model's name in the settings means, and the digest that stands for them.

A name is one of: `training:NAME`, the last checkpoint of an earlier training; `random:tiny` or
`random:medium`, a small model with random weights, made on first use; a folder; a name on the hub.
"""

import os
import re
import shutil
import sys
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import soundfile  # pyright: ignore[reportMissingTypeStubs]  # it has none

from model.prompt import as_audio_question
from model.train.checkpoints import is_whole
from storage import manifest
from storage.errors import PipelineError
from storage.jsonl import read_jsonl, write_text
from storage.layout import Layout, checkpoint_step, list_checkpoints
from tasks.running.child_process import run_child

RANDOM_PREFIX = "random:"
TRAINING_PREFIX = "training:"
DEFAULT_CLIP_LENGTH_S = 10.0  # AVQA's
WHOLE_DIGEST_LIMIT_BYTES = (
    64 << 20
)  # a foreign folder's larger files are told apart by size and time


class Model(NamedTuple):
    """A model that can be loaded."""

    key: str
    """Row and folder name, e.g. `grpo-step-100`."""
    path: str
    """Folder, or name on the hub."""
    digest: str
    """Stands for the weights in a manifest's key."""
    training: str | None = None
    """The training that made it."""
    step: int | None = None
    """Its optimiser step in that training."""


def resolve(name: str, layout: Layout) -> Model:
    """Find the model that a name means.

    Raises:
        PipelineError: If the training it names has not been run here, or `random:` names no known
        size.
    """
    if name.startswith(TRAINING_PREFIX):
        return trained(name.removeprefix(TRAINING_PREFIX), layout)[-1]
    if name.startswith(RANDOM_PREFIX):
        folder = _random_model(name.removeprefix(RANDOM_PREFIX), layout)
        return Model(name.replace(":", "-"), str(folder), _folder_digest(folder))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Model(_slug(folder.name), str(folder.absolute()), _folder_digest(folder))
    return Model(_slug(name.rpartition("/")[2]), name, f"hub:{name}")


def start_key(name: str, layout: Layout) -> str:
    """The key of the model that a name means."""
    return resolve(name, layout).key


def trained(training: str, layout: Layout) -> list[Model]:
    """A finished training's checkpoints by step.

    Raises:
        PipelineError: If it has not been run here, or a checkpoint is gone; says which and what to
        do.
    """
    remedy = (
        "Run `python -m flows.train` with this profile first, or the pipeline with `--from train`."
    )
    record = manifest.read(layout.manifest(f"train/{training}"))
    if record is None:
        msg = f"checkpoint missing: {training} has not been finished in {layout.root}. {remedy}"
        raise PipelineError(msg)
    gone = [name for name in record.outputs if not Path(name).exists()]
    if gone:
        msg = f"checkpoint missing: {gone[0]}. {remedy}"
        raise PipelineError(msg)
    models = [
        checkpoint_model(training, folder, record)
        for folder in list_checkpoints(layout.training(training))
    ]
    if not models:
        msg = f"checkpoint missing: {layout.training(training)} holds none. {remedy}"
        raise PipelineError(msg)
    return models


def trained_so_far(training: str, layout: Layout) -> list[Model]:
    """The checkpoints that a training, perhaps a running one, has written whole."""
    return [
        checkpoint_model(training, folder, None) for folder in whole_checkpoints(training, layout)
    ]


def whole_checkpoints(training: str, layout: Layout) -> list[Path]:
    """Folders of a training's checkpoints by step, without those of which files are missing."""
    return [folder for folder in list_checkpoints(layout.training(training)) if is_whole(folder)]


def checkpoint_model(training: str, folder: Path, record: manifest.Manifest | None) -> Model:
    """One checkpoint as a model; its digest is that of its weights, whoever took it."""
    step = checkpoint_step(folder)
    stamps = record.outputs if record else {}
    weights = {
        file.name: stamps[str(file)].sha256 if str(file) in stamps else _file_digest(file)
        for file in sorted(folder.glob("*.safetensors"))
    }
    digest = manifest.digest_of(weights)
    return Model(f"{training}-step-{step}", str(folder), digest, training, step)


def _file_digest(file: Path) -> str:
    status = file.stat()
    return _digest_once(file, status.st_ino, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4096)
def _digest_once(file: Path, *_state: int) -> str:
    """A checkpoint of the 7B has 33 GB, and who watches a training asks for it again and again."""
    return manifest.file_digest(file)


def _random_model(size: str, layout: Layout) -> Path:
    """Make a small random model whose tokenizer knows the words of the training examples."""
    examples = read_jsonl(layout.train_jsonl) if layout.train_jsonl.exists() else []
    texts = [
        text
        for example in examples
        for text in (example["question_text"], *example["multi_choice"])
    ]
    texts = [as_audio_question(text) for text in dict.fromkeys(texts)]
    clip_length_s = (
        soundfile.info(examples[0]["audio_path"]).duration if examples else DEFAULT_CLIP_LENGTH_S
    )
    name = f"{size}-{manifest.digest_of([texts, clip_length_s])[:8]}"
    folder = layout.models / name
    if not folder.is_dir():
        words = layout.models / f"{name}.txt"
        write_text(words, "\n".join(texts))
        part = folder.with_name(f"{name}.{os.getpid()}.part")  # a training and who watches it
        command = [sys.executable, "-m", "model.network.tiny", str(part), "--size", size]
        command += ["--texts", str(words), "--clip-length-s", str(clip_length_s)]
        run_child(command, log=layout.models / f"{name}.log", on_line=lambda _line: None)
        try:
            part.rename(folder)
        except OSError:  # the other was first; what it made is the same
            shutil.rmtree(part)
    return folder


def _folder_digest(folder: Path) -> str:
    contents: list[object] = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        status = file.stat()
        is_large = status.st_size > WHOLE_DIGEST_LIMIT_BYTES
        content = status.st_mtime_ns if is_large else manifest.file_digest(file)
        contents.append([str(file.relative_to(folder)), status.st_size, content])
    return manifest.digest_of(contents)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)
