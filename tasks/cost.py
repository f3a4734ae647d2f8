"""What work would cost and set aside: disk by count, hours as measured here, else by count.

A training's speed is that of the steps in its folder, an evaluation's that of the experiment's
others; where nothing was measured, operations and a card's speed tell (model/train/estimates.py).
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from model.checkpoints import last_step
from model.config import EvaluateConfig, TrainConfig
from model.score.controls import runs_of
from model.train.estimates import SHORT_ANSWER, forecast_answer_s, forecast_step_s
from storage.benchmarks.published import find_description, find_prepared
from storage.config import BenchmarkConfig, FetchConfig, YoutubeSource
from storage.errors import PipelineError
from storage.fetch.gate import Pace
from storage.host.checks import GB
from storage.host.gpus import Gpu
from storage.jsonl import read_json
from storage.layout import Layout, name_aside
from storage.records.evaluation import list_runs
from storage.records.model import FromTraining, Random, parse_name
from storage.records.sizes import ModelSizes
from storage.records.training import RUN, read_metrics
from tasks.models import sizes_of
from tasks.running.console import format_duration

NUM_CLIPS = 40_425  # questions of AVQA's training file, about one clip each
CLIP_BYTES_PER_S = 2 * 16_000
MEDIA_BYTES = 1.5e6  # a video of four minutes at 50 kbit/s
AT_ONCE = 16  # questions, where memory decides
SHOWN_BYTES = 1e7  # less is not told
Gpus = Callable[[], Sequence[Gpu]]  # of this host; asked only where nothing was measured


def most_clips(config: FetchConfig) -> int:
    """Clips at most, where AVQA's annotations cannot be read."""
    return min(NUM_CLIPS, config.limit or NUM_CLIPS)


class Cost(NamedTuple):
    """Of some work: disk, and seconds at least and at most; 0: not known."""

    size_bytes: float = 0.0
    least_s: float = 0.0
    most_s: float = 0.0
    is_counted: bool = False
    """Whether no run here was measured."""

    def text(self) -> str:
        """E.g. `12.94 GB, 28.1 h to 3.9 days by count`; empty if nothing is known."""
        parts = [f"{self.size_bytes / GB:.2f} GB"] if self.size_bytes >= SHOWN_BYTES else []
        if self.most_s:
            bounds = dict.fromkeys(map(format_duration, (self.least_s, self.most_s)))
            parts.append(" to ".join(bounds) + (" by count" if self.is_counted else " as measured"))
        return ", ".join(parts)

    def times(self, count: int) -> "Cost":
        """Of so many."""
        size_bytes, least_s, most_s, is_counted = self
        return Cost(size_bytes * count, least_s * count, most_s * count, is_counted)


def sum_of(costs: Iterable[Cost]) -> Cost:
    """Of all of them, as far as it is known."""
    sizes, least, most, counted = zip(Cost(), *costs, strict=True)
    return Cost(sum(sizes), sum(least), sum(most), any(counted))


def fetch_cost(config: FetchConfig, num_clips: int, num_videos: int) -> Cost:
    """Of clips that are due: their size, and the hours that YouTube's budget takes."""
    is_paced = any(isinstance(source, YoutubeSource) for source in config.sources)
    eta_s = (Pace(config.videos_per_hour).eta_s(num_videos) or 0.0) * is_paced
    return Cost(_clip_bytes(config, num_clips), eta_s, eta_s, is_counted=True)


def train_cost(
    training: TrainConfig, start: str, layout: Layout, gpus: Gpus, *, anew: bool
) -> Cost:
    """Of a training's steps that are still to do, of a model of the size of `start`."""
    folder, sizes = layout.training(training.name), _sizes_of(start, layout.models)
    took = [step.seconds["total"] for step in read_metrics(folder) if "total" in step.seconds]
    least_s = most_s = median(took) if took else 0.0
    if not took and sizes and (used := gpus()[: training.num_gpus]):
        num_gpus = len(used) * training.num_hosts
        least_s, most_s = forecast_step_s(training, sizes, used[0].model, num_gpus) or (0.0, 0.0)
    there, done = (0, 0) if anew else (bytes_in(folder), last_step(folder) or 0)
    left = training.max_steps - max(done, training.steps_before)
    size_bytes = max(0, checkpoints_bytes(training, sizes.total if sizes else 0) - there)
    return Cost(size_bytes, least_s * left, most_s * left, is_counted=not took)


def answer_cost(config: EvaluateConfig, start: str, layout: Layout, gpus: Gpus) -> Cost:
    """Of one answer, on one GPU, by a model of the size of `start`."""
    runs = [run for _, run in list_runs(layout.evaluations) if run.seconds]
    if runs:
        seconds = sum(run.seconds for run in runs) / sum(run.num_questions for run in runs)
        return Cost(0, seconds, seconds)
    cards, sizes = gpus(), _sizes_of(start, layout.models)
    if not cards or sizes is None:
        return Cost()
    lengths, at_once = (SHORT_ANSWER, config.max_new_tokens), config.batch_size or AT_ONCE
    found = [forecast_answer_s(sizes, cards[0].model, size, at_once) for size in lengths]
    return Cost(0, min(found), max(found), is_counted=True)


def set_aside_by(training: TrainConfig, layout: Layout, *, anew: bool) -> str:
    """What becomes of what lies in a training's folder: gone on with, or set aside; empty: none."""
    folder = layout.training(training.name)
    if not (folder / RUN).exists():
        return ""
    step = last_step(folder) or 0
    if not anew:
        return f"goes on behind step {step} of {training.max_steps}"
    there = f"what is there (step {step}, {bytes_in(folder) / GB:.2f} GB) and its evaluations"
    return f"starts anew; {there} are kept in {name_aside(folder).name}"


def count_answers(
    trainings: Sequence[TrainConfig], config: EvaluateConfig, num_held_out: int, layout: Layout
) -> tuple[int, int]:
    """Models and answers where these trainings are evaluated; 0 answers: not known."""
    evaluated = [training for training in trainings if training.evaluate]
    num_starts = config.base * len({(each.model, each.prompt.sha256) for each in evaluated})
    num_models = num_starts + len(config.models)
    num_models += sum(len(training.saved_steps) for training in evaluated)
    found = [_num_questions(entry, config.limit, layout) for entry in config.benchmarks]
    num_controls = len(runs_of(config.controls)) * (num_starts + len(evaluated))
    num_answers = num_models * (sum(found) + num_held_out) + num_controls * sum(found)
    return num_models, num_answers if all(found) else 0


def _num_questions(entry: BenchmarkConfig, limit: int | None, layout: Layout) -> int:
    known, folder = find_description(entry).num_questions, find_prepared(entry, layout.benchmarks)
    known = known or (len(read_json(folder / "questions.json")) if folder else 0)
    return min(known, limit or known)


def start_models(trainings: Sequence[TrainConfig]) -> dict[str, str]:
    """For each training, the model at the bottom of its `training:` references."""
    found: dict[str, str] = {}
    for training in trainings:
        start = parse_name(training.model)
        earlier = found.get(start.name) if isinstance(start, FromTraining) else None
        found[training.name] = earlier or training.model
    return found


def disk_needs(
    trainings: Sequence[TrainConfig], fetch: FetchConfig, num_clips: int, models: Path
) -> dict[str, float]:
    """Bytes for clips to fetch and all checkpoints of trainings, by what they are for."""
    kept = " and downloads" if fetch.keep_media else ""
    needs = {f"clips{kept}": _clip_bytes(fetch, num_clips)}
    starts = start_models(trainings)
    for training in trainings:
        sizes = _sizes_of(starts[training.name], models)
        size_bytes = checkpoints_bytes(training, sizes.total if sizes else 0)
        needs[f"checkpoints of {training.name}"] = size_bytes
    return {name: size for name, size in needs.items() if size >= SHOWN_BYTES}


def _clip_bytes(config: FetchConfig, num_clips: int) -> float:
    media = MEDIA_BYTES if config.keep_media else 0
    return num_clips * (config.clip_length_s * CLIP_BYTES_PER_S + media)


def _sizes_of(model: str, models: Path) -> ModelSizes | None:
    """Of a start model; None for one whose size is not known or is told by another check."""
    try:
        return None if isinstance(parse_name(model), Random) else sizes_of(model, models)
    except PipelineError:
        return None


def bytes_in(folder: Path) -> int:
    """Size of all that lies in a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def checkpoints_bytes(training: TrainConfig, num_parameters: float) -> float:
    """Bytes of a training's checkpoints: all with weights, the newest with optimiser state."""
    if training.lora is not None:
        num_parameters *= 0.01  # adapters, generously
    steps, kept = training.saved_steps, training.checkpoints
    num_full = min(kept.full, len(steps)) + 1  # one being written
    num_kept = num_full + sum(not kept.may_go(step) for step in steps[: -kept.full])
    weight = 4 if training.precision == "fp32" else 2
    masters = 4 if training.precision == "bf16-mixed" and training.lora is None else 0
    moments = 2 if training.optimizer == "adamw-8bit-sr" else 4 if weight + masters == 2 else 8
    return num_parameters * (num_kept * weight + num_full * (masters + moments))
