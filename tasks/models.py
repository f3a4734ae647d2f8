"""Which weights a model's name in the settings means: the one place that tells.

A finished training's checkpoints are told from its manifest, which knows their digests: one that
was deleted to make room is still known, and its evaluation stands.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

import soundfile  # pyright: ignore[reportMissingTypeStubs]  # it has none

from model.checkpoints import is_whole
from storage import manifest
from storage.errors import PipelineError
from storage.host.checks import model_folder
from storage.jsonl import read_json, read_jsonl, write_json
from storage.layout import Layout, checkpoint_step, list_checkpoints
from storage.records.model import (
    HUB,
    FolderOrHub,
    FromTraining,
    ModelRef,
    Random,
    TrainingRef,
    checkpoint_key,
    folder_key,
    hub_key,
    parse_name,
)
from storage.records.question import as_audio_question
from storage.records.sizes import ModelSizes, published_sizes
from storage.records.training import RUN, TrainingRecord, base_of
from tasks.running.child_process import run_child

DEFAULT_CLIP_LENGTH_S = 10.0  # AVQA's
REMEDY = "Run `python -m flows.train` with this profile first, or the pipeline with `--from train`."
# What loading reads: not a checkpoint's optimiser state and record, nor a download's own notes.
LOADED = (
    *("*.safetensors", "pytorch_model*.bin", "*.index.json", "*config.json", "chat_template*"),
    *("tokenizer*", "vocab*", "merges.txt", "added_tokens.json", "special_tokens_map.json"),
)


def resolve(text: str, layout: Layout) -> ModelRef:
    """Find the model that a name in the settings means.

    Raises:
        PipelineError: If the training it names has not been finished here or has no such step, or
            `random:` names no known size.
    """
    match parse_name(text):
        case FromTraining(name, step):
            models = trained(name, layout)
            found = [model for model in models if step is None or _step(model) == step]
            if not found:
                steps = ", ".join(str(_step(model)) for model in models)
                msg = f"{text}: {name} has no checkpoint of step {step}; it has {steps}"
                raise PipelineError(msg)
            return found[-1]
        case Random(size):
            folder = _random_model(size, layout)
            return _in_folder(folder, layout).model_copy(update={"key": f"random-{size}"})
        case FolderOrHub(name):
            folder = Path(name).expanduser()
            if folder.is_dir():
                return _in_folder(folder.absolute(), layout)
            return ModelRef(key=hub_key(name), path=name, digest=f"{HUB}{name}")


def trained(training: str, layout: Layout) -> list[ModelRef]:
    """A finished training's checkpoints by step, those included that were deleted since.

    Raises:
        PipelineError: If it has not been finished here; says what to do.
    """
    record = manifest.read(layout.manifest(f"train/{training}"))
    folder = layout.training(training)
    digests: dict[Path, dict[str, str]] = {}
    for name, stamp in record.outputs.items() if record else ():
        file = Path(name)
        if checkpoint_step(file.parent) is not None and is_loaded(file):
            digests.setdefault(file.parent, {})[file.name] = stamp.sha256
    if not digests:
        msg = f"checkpoint missing: {training} has not been finished in {layout.root}. {REMEDY}"
        raise PipelineError(msg)
    seed = _seed_of(folder)
    models = [_checkpoint(training, seed, path, found) for path, found in digests.items()]
    return _on_their_base(sorted(models, key=_step), layout)


def trained_so_far(training: str, layout: Layout) -> list[ModelRef]:
    """The checkpoints that a training, perhaps a running one, has written whole."""
    folders = whole_checkpoints(training, layout)
    seed = _seed_of(layout.training(training)) if folders else 0
    models = [_checkpoint(training, seed, folder, _digests(folder, layout)) for folder in folders]
    return _on_their_base(models, layout)


def _on_their_base(models: list[ModelRef], layout: Layout) -> list[ModelRef]:
    """The same; adapters on other weights than they were trained on are refused."""
    base = base_of(models[-1].path) if models else None
    if base is not None and Path(base).is_dir():
        start = TrainingRecord.read(Path(models[-1].path).parent / RUN).start
        if _in_folder(Path(base), layout).digest != start.digest:
            msg = (
                f"{models[-1].key} is an adapter for {start.key} ({start.digest[:8]}), but {base} "
                "holds other weights by now: bring those back"
            )
            raise PipelineError(msg)
    return models


def whole_checkpoints(training: str, layout: Layout) -> list[Path]:
    """Folders of a training's checkpoints by step, without those of which files are missing."""
    return [folder for folder in list_checkpoints(layout.training(training)) if is_whole(folder)]


def is_gone(model: ModelRef) -> bool:
    """Whether a checkpoint was deleted, in whole or in part, since its training was finished."""
    return model.training is not None and not is_whole(Path(model.path))


def _in_folder(folder: Path, layout: Layout) -> ModelRef:
    digest = manifest.digest_of(_digests(folder, layout))
    return ModelRef(key=folder_key(folder.name, digest), path=str(folder), digest=digest)


def _checkpoint(training: str, seed: int, folder: Path, digests: Mapping[str, str]) -> ModelRef:
    """One checkpoint as a model; whoever took its digests, they give the same."""
    step = checkpoint_step(folder) or 0
    return ModelRef(
        key=checkpoint_key(training, step),
        path=str(folder),
        digest=manifest.digest_of(digests),
        training=TrainingRef(name=training, seed=seed, step=step),
    )


def _digests(folder: Path, layout: Layout) -> dict[str, str]:
    """sha256 of each file that loading reads, by name."""
    return {
        file.name: manifest.remembered_digest(file, layout.digests)
        for file in sorted(folder.iterdir())
        if file.is_file() and is_loaded(file)
    }


def is_loaded(file: Path) -> bool:
    """Whether loading a model reads this file of its folder."""
    return any(fnmatch(file.name, pattern) for pattern in LOADED)


def _step(model: ModelRef) -> int:
    return model.training.step if model.training else 0


def _seed_of(training: Path) -> int:
    return TrainingRecord.read(training / RUN).seed


def run_network(command: str, log: Path, **arguments: object) -> None:
    """Do in a child with torch what `model.run_network` can.

    Raises:
        PipelineError: What it says.
    """
    file = log.with_suffix(".json")
    write_json(file, arguments)
    child = [sys.executable, "-m", "model.run_network", command, str(file)]
    run_child(child, log=log, on_line=lambda _line: None)


def sizes_of(model: str, cache: Path) -> ModelSizes | None:
    """How large a model is, without its weights; None for one that is neither known nor here.

    Args:
        model: Folder or hub name.
        cache: Folder that keeps what was measured before: a child with torch takes seconds.

    Raises:
        PipelineError: If it is of no family that can be trained or evaluated.
    """
    known, folder = published_sizes(model), model_folder(model)
    if known is not None or folder is None:
        return known
    if base := base_of(folder):
        return sizes_of(base, cache)
    config = manifest.digest_of(read_json(folder / "config.json"))
    kept = cache / f"{config[:16]}.sizes.json"
    if not kept.exists():
        run_network("measure", kept.with_suffix(".run.log"), model=str(folder), file=str(kept))
    return ModelSizes.model_validate(read_json(kept))


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
    size, _, family = size.partition("-")
    folder = layout.models / name
    if not folder.is_dir():
        part = folder.with_name(f"{name}.{os.getpid()}.part")  # a training and who watches it
        arguments = {"texts": texts, "clip_length_s": clip_length_s, "size": size}
        arguments |= {"family": family} if family else {}
        run_network("tiny", layout.models / f"{name}.log", folder=str(part), **arguments)
        try:
            part.rename(folder)
        except OSError:  # the other was first; what it made is the same
            shutil.rmtree(part)
    return folder
