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
from storage.layout import CLIP_LENGTH_S, Layout, checkpoint_step, list_checkpoints
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

REMEDY = "Run `python -m flows.train` with this profile first, or the pipeline with `--from train`."
# What loading reads: not a checkpoint's optimiser state and record, nor a download's own notes.
LOADED = (
    *("*.safetensors", "pytorch_model*.bin", "*.index.json", "*config.json", "chat_template*"),
    *("tokenizer*", "vocab*", "merges.txt", "added_tokens.json", "special_tokens_map.json"),
)


def resolve(text: str, layout: Layout) -> ModelRef:
    """Find the model that a name in the settings means, or say what it lacks and what to do."""
    match parse_name(text):
        case FromTraining(name, step):
            models = {checkpoint_step(Path(ref.path)): ref for ref in trained(name, layout)}
            found = max(filter(None, models)) if step is None else step
            if found not in models:
                steps = ", ".join(map(str, models))
                msg = f"{text}: {name} has no checkpoint of step {step}; it has {steps}"
                raise PipelineError(msg)
            return models[found]
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
    digests: dict[Path, dict[str, str]] = {}
    for name, stamp in record.outputs.items() if record else ():
        file = Path(name)
        if checkpoint_step(file.parent) is not None and is_loaded(file):
            digests.setdefault(file.parent, {})[file.name] = stamp.sha256
    if not digests:
        msg = f"checkpoint missing: {training} has not been finished in {layout.root}. {REMEDY}"
        raise PipelineError(msg)
    return _checkpoints(training, digests, layout)


def trained_so_far(training: str, layout: Layout) -> list[ModelRef]:
    """The checkpoints that a training, perhaps a running one, has written whole."""
    folders = whole_checkpoints(training, layout)
    digests = {folder: _digests(folder, layout) for folder in folders}
    return _checkpoints(training, digests, layout) if digests else []


def _checkpoints(
    training: str, digests: Mapping[Path, Mapping[str, str]], layout: Layout
) -> list[ModelRef]:
    """Checkpoints as models by step; whoever took the digests of their files, they give the same.

    Adapters on other weights than they were trained on are refused.
    """
    record = TrainingRecord.read(layout.training(training) / RUN)
    by_step = {checkpoint_step(folder) or 0: folder for folder in digests}
    models = [
        ModelRef(
            key=checkpoint_key(training, step),
            path=str(folder),
            digest=manifest.digest_of(digests[folder]),
            training=TrainingRef(name=training, seed=record.seed, step=step),
        )
        for step, folder in sorted(by_step.items())
    ]
    last, start = models[-1], record.start
    base = base_of(last.path)
    if base and Path(base).is_dir() and _in_folder(Path(base), layout).digest != start.digest:
        msg = (
            f"{last.key} is an adapter for {start.key} ({start.digest[:8]}), but {base} "
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


def run_network(command: str, log: Path, **arguments: object) -> None:
    """Do in a child with torch what `model.run_network` can."""
    file = log.with_suffix(".json")
    write_json(file, arguments)
    run_child([sys.executable, "-m", "model.run_network", command, str(file)], log=log)


def sizes_of(model: str, cache: Path) -> ModelSizes | None:
    """How large a model, a folder or hub name, is; None for one that is neither known nor here.

    What was measured is kept in `cache`: a child with torch takes seconds. A family that cannot be
    trained or evaluated is refused.
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
    asked = dict.fromkeys(
        text
        for example in examples
        for text in (example["question_text"], *example["multi_choice"])
    )
    texts = list(map(as_audio_question, asked))
    length_s = soundfile.info(examples[0]["audio_path"]).duration if examples else CLIP_LENGTH_S
    name = f"{size}-{manifest.digest_of([texts, length_s])[:8]}"
    size, _, family = size.partition("-")
    folder = layout.models / name
    if not folder.is_dir():
        part = folder.with_name(f"{name}.{os.getpid()}.part")  # a training and who watches it
        arguments = {"texts": texts, "clip_length_s": length_s, "size": size, "folder": str(part)}
        arguments |= {"family": family} if family else {}
        run_network("tiny", layout.models / f"{name}.log", **arguments)
        try:
            part.rename(folder)
        except OSError:  # the other was first; what it made is the same
            shutil.rmtree(part)
    return folder
