"""Every path of a workspace, in one place.

```
workspace/
  ledger.sqlite  clips/-HG3Omg_89c_30.wav  annotations/      shared by all experiments
  clips-2s/  media/                                          clips of another length, kept downloads
  benchmarks/mmau-test-mini-original-e8cc0922/{questions.json, audio/}   features/ answers/
  models/  world/                                            made here (the demo's)
  digests.jsonl                                              of large files, read once
  locks/  tmp/
  <experiment>/fetch/{fetch_report.json, invalid.jsonl, clips.csv}
  <experiment>/{train.jsonl, validation.jsonl, dropped.jsonl, data.json}
  <experiment>/training/<name>/{run.json, metrics.jsonl, trainer.log, checkpoint-100/, ...}
  <experiment>/evaluation/<model>/<benchmark>/<prompt>/{run.json, answers.jsonl, verdicts.jsonl,
                                                        score.json, controls.json}
  <experiment>/manifests/*.json   <experiment>/site/
```
"""

import re
from dataclasses import dataclass
from pathlib import Path

CLIP_LENGTH_S = 10.0  # R1-AQA's
# Of a workspace, for all experiments: no experiment's name.
RESERVED = {
    *("annotations", "answers", "benchmarks", "clips", "datasets", "downloads", "features"),
    *("ledger.sqlite", "locks", "media", "models", "prefect", "tmp", "world", "yt-dlp-cache"),
}
CLIPS_FOLDER = re.compile(r"clips(-[0-9.]+s)?")
CHECKPOINT_NAME = re.compile(r"checkpoint-(\d+)")


class Place:
    """An attribute that is a path in a folder, which another attribute holds."""

    def __init__(self, folder: str, name: str) -> None:
        self.folder, self.name = folder, name

    def __get__(self, places: object, _owner: type) -> Path:
        """The path."""
        return getattr(places, self.folder) / self.name


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything of one experiment lies."""

    workspace: Path
    """Folder shared by all experiments; absolute."""
    experiment: str
    """Name of the experiment's folder, e.g. `paper`."""
    clip_length_s: float = CLIP_LENGTH_S
    """Seconds of a clip: clips of another length than R1-AQA's have a folder of their own."""

    ledger = Place("workspace", "ledger.sqlite")
    """SQLite account of every clip that any experiment asked for."""
    media = Place("workspace", "media")
    """Folder of whole downloads, named by video id, where `fetch.keep_media` is set."""
    downloads = Place("workspace", "downloads")
    """Folder of downloads and cuts in flight; beside the clips, so that a rename is enough."""
    ytdlp_cache = Place("workspace", "yt-dlp-cache")
    """Folder in which yt-dlp keeps YouTube's player code."""
    temporary = Place("workspace", "tmp")
    """Folder of what Prefect's runner works in."""
    locks = Place("workspace", "locks")
    """Folder of lock files."""
    models = Place("workspace", "models")
    """Folder of models made here."""
    digests = Place("workspace", "digests.jsonl")
    """What was read of large files before, so that they are not read at every start."""
    world = Place("workspace", "world")
    """A made world's media, annotations and benchmark (the demo's)."""
    datasets = Place("workspace", "datasets")
    """Folder of what data sets of the hub gave."""
    benchmarks = Place("workspace", "benchmarks")
    """Folder of the benchmarks: each lies under its digest."""

    fetch = Place("root", "fetch")
    """The experiment's account of its clips: fetch_report.json, invalid.jsonl, clips.csv."""
    train_jsonl = Place("root", "train.jsonl")
    """Training examples, one R1-AQA line each."""
    validation_jsonl = Place("root", "validation.jsonl")
    """Held-out examples, for choosing a checkpoint."""
    dropped_jsonl = Place("root", "dropped.jsonl")
    """Rows that did not become examples, with the reason."""
    data_account = Place("root", "data.json")
    """What became of the rows of each source of training data."""
    evaluations = Place("root", "evaluation")
    """Folder of the models' answers, in it `RunKey.folder`."""
    site = Place("root", "site")
    """The HTML report and the leaderboard's exports."""

    @property
    def root(self) -> Path:
        """The experiment's own folder."""
        return self.workspace / self.experiment

    @property
    def clips(self) -> Path:
        """Folder of trimmed clips, named `<video id>_<start second>.wav`."""
        is_usual = self.clip_length_s == CLIP_LENGTH_S
        return self.workspace / ("clips" if is_usual else f"clips-{self.clip_length_s:g}s")

    def lock(self, unit: str) -> Path:
        """Lock file of a unit of the experiment's work, e.g. `train/grpo`."""
        return self.locks / self.experiment / f"{unit.replace('/', '--')}.lock"

    def benchmark(self, key: str) -> Path:
        """Folder of one benchmark."""
        return self.benchmarks / key

    def dataset(self, name: str, split: str) -> Path:
        """Folder of the audio of a hub's data set, named by clip."""
        return self.datasets / name.strip("/").replace("/", "--") / split

    def training(self, name: str) -> Path:
        """Folder of one training."""
        return self.root / "training" / name

    def manifest(self, stage: str) -> Path:
        """Manifest of a stage, or of one unit of it (`train/grpo` becomes `train--grpo.json`)."""
        return self.root / "manifests" / f"{stage.replace('/', '--')}.json"


def name_aside(folder: Path) -> Path:
    """The next free name for what is kept of a folder, e.g. `grpo.replaced-1`."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.replaced-{number}")).exists():
        number += 1
    return aside


def checkpoint_step(path: Path) -> int | None:
    """The optimiser step in a folder's name `checkpoint-100`; None for any other name."""
    match = CHECKPOINT_NAME.fullmatch(path.name)
    return int(match.group(1)) if match else None


def list_checkpoints(training: Path) -> list[Path]:
    """A training's checkpoint folders by step; a folder still being written has another name."""
    steps = {path: checkpoint_step(path) for path in training.glob("checkpoint-*")}
    found = sorted((step, path) for path, step in steps.items() if step is not None)
    return [path for _, path in found]
