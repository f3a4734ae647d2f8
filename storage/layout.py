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
    *(
        "annotations",
        "answers",
        "benchmarks",
        "clips",
        "datasets",
        "downloads",
        "features",
        "ledger.sqlite",
        "media",
    ),
    *("locks", "models", "prefect", "tmp", "world", "yt-dlp-cache"),
}
CLIPS_FOLDER = re.compile(r"clips(-[0-9.]+s)?")
CHECKPOINT_NAME = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything of one experiment lies."""

    workspace: Path
    """Folder shared by all experiments; absolute."""
    experiment: str
    """Name of the experiment's folder, e.g. `paper`."""
    clip_length_s: float = CLIP_LENGTH_S
    """Seconds of a clip: clips of another length than R1-AQA's have a folder of their own."""

    @property
    def root(self) -> Path:
        """The experiment's own folder."""
        return self.workspace / self.experiment

    @property
    def ledger(self) -> Path:
        """SQLite account of every clip that any experiment asked for."""
        return self.workspace / "ledger.sqlite"

    @property
    def clips(self) -> Path:
        """Folder of trimmed clips, named `<video id>_<start second>.wav`."""
        is_usual = self.clip_length_s == CLIP_LENGTH_S
        return self.workspace / ("clips" if is_usual else f"clips-{self.clip_length_s:g}s")

    @property
    def media(self) -> Path:
        """Folder of whole downloads, named by video id, where `fetch.keep_media` is set."""
        return self.workspace / "media"

    @property
    def downloads(self) -> Path:
        """Folder of downloads and cuts in flight; beside the clips, so that a rename is enough."""
        return self.workspace / "downloads"

    @property
    def ytdlp_cache(self) -> Path:
        """Folder in which yt-dlp keeps YouTube's player code."""
        return self.workspace / "yt-dlp-cache"

    @property
    def temporary(self) -> Path:
        """Folder of what Prefect's runner works in."""
        return self.workspace / "tmp"

    @property
    def locks(self) -> Path:
        """Folder of lock files."""
        return self.workspace / "locks"

    def lock(self, unit: str) -> Path:
        """Lock file of a unit of the experiment's work, e.g. `train/grpo`."""
        return self.locks / self.experiment / f"{unit.replace('/', '--')}.lock"

    @property
    def models(self) -> Path:
        """Folder of models made here."""
        return self.workspace / "models"

    @property
    def digests(self) -> Path:
        """What was read of large files before, so that they are not read at every start."""
        return self.workspace / "digests.jsonl"

    @property
    def world(self) -> Path:
        """A made world's media, annotations and benchmark (the demo's)."""
        return self.workspace / "world"

    @property
    def fetch(self) -> Path:
        """The experiment's account of its clips: fetch_report.json, invalid.jsonl, clips.csv."""
        return self.root / "fetch"

    @property
    def train_jsonl(self) -> Path:
        """Training examples, one R1-AQA line each."""
        return self.root / "train.jsonl"

    @property
    def validation_jsonl(self) -> Path:
        """Held-out examples of AVQA, for choosing a checkpoint."""
        return self.root / "validation.jsonl"

    @property
    def dropped_jsonl(self) -> Path:
        """Annotation rows that did not become examples, with the reason."""
        return self.root / "dropped.jsonl"

    @property
    def data_account(self) -> Path:
        """What became of the rows of each source of training data."""
        return self.root / "data.json"

    @property
    def datasets(self) -> Path:
        """Folder of what data sets of the hub gave, shared by all experiments."""
        return self.workspace / "datasets"

    @property
    def evaluations(self) -> Path:
        """Folder of the models' answers, in it `RunKey.folder`."""
        return self.root / "evaluation"

    @property
    def site(self) -> Path:
        """The HTML report and the leaderboard's exports."""
        return self.root / "site"

    @property
    def benchmarks(self) -> Path:
        """Folder of the benchmarks, shared by all experiments: each lies under its digest."""
        return self.workspace / "benchmarks"

    def benchmark(self, key: str) -> Path:
        """Folder of one benchmark."""
        return self.benchmarks / key

    def dataset(self, name: str, split: str) -> Path:
        """Folder of the audio of a hub's data set, named by clip; shared by all experiments."""
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
    if not training.is_dir():
        return []
    found = [
        (step, path) for path in training.iterdir() if (step := checkpoint_step(path)) is not None
    ]
    return [path for _, path in sorted(found)]
