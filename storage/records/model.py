"""A model as every stage names it: a key for folders and tables, a digest for identity."""

import re
from typing import NamedTuple

from storage.config import Config
from storage.errors import PipelineError

HUB = "hub:"  # begins the digest of a model that is known by its name on the hub
TRAINING_PREFIX = "training:"
RANDOM_PREFIX = "random:"
DIGEST_CHARACTERS = 8  # of a digest in a key; two folders of one name differ in them
NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9._-]+")
STEP = re.compile(r"(?P<name>.+)@(?P<step>\d+)")


class TrainingRef(Config):
    """The training that made a checkpoint."""

    name: str
    seed: int
    step: int
    """Optimiser step of the checkpoint."""


class ModelRef(Config):
    """A model that can be loaded. Two are the same model when their digests are."""

    key: str
    """Folder and row name: `grpo-step-100`, `Qwen--Qwen2-Audio-7B-Instruct`, `final-1a2b3c4d`."""
    path: str
    """Folder, or name on the hub."""
    digest: str
    """Stands for its weights: of a folder's contents; of a hub's model its name."""
    revision: str | None = None
    """Commit of a model from the hub; None until it was loaded."""
    training: TrainingRef | None = None
    """The training of this experiment that made it; None for other models."""

    @property
    def public_name(self) -> str:
        """The hub's name of it, or its key: neither says where it lies on this host."""
        return self.digest.removeprefix(HUB) if self.digest.startswith(HUB) else self.key


class FromTraining(NamedTuple):
    """`training:NAME`, its last checkpoint, or `training:NAME@STEP`."""

    name: str
    step: int | None


class Random(NamedTuple):
    """`random:tiny`: a small model with random weights, made on first use."""

    size: str


class FolderOrHub(NamedTuple):
    """A folder, where there is one of this name, else a name on the hub."""

    name: str


def parse_name(text: str) -> FromTraining | Random | FolderOrHub:
    """What a model's name in the settings means; PipelineError if nothing follows the prefix."""
    prefix, colon, name = text.partition(":")
    if prefix + colon not in (TRAINING_PREFIX, RANDOM_PREFIX):
        return FolderOrHub(text)
    if not name:
        raise PipelineError(f"model {text!r} names nothing after {text!r}")
    if prefix + colon == RANDOM_PREFIX:
        return Random(name)
    match = STEP.fullmatch(name)
    return FromTraining(match["name"], int(match["step"])) if match else FromTraining(name, None)


def checkpoint_key(training: str, step: int) -> str:
    """Key of a training's checkpoint; a training's name is unique in its experiment."""
    return f"{training}-step-{step}"


def hub_key(name: str) -> str:
    """Key of a model on the hub: `Qwen/Qwen2-Audio-7B` becomes `Qwen--Qwen2-Audio-7B`."""
    return NOT_IN_KEYS.sub("-", name.strip("/").replace("/", "--"))


def folder_key(name: str, digest: str) -> str:
    """Key of a folder's model: its own name, and what tells it from others of that name."""
    return f"{NOT_IN_KEYS.sub('-', name)}-{digest[:DIGEST_CHARACTERS]}"
