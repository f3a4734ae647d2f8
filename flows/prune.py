"""Prune: free what the disk holds and nothing needs any more; sizes first, then a question.

It names intermediate checkpoints whose evaluations stand (not the last one, not the one that leads,
none that another training starts from or that the setting `checkpoints` keeps at even distances),
what was kept aside as `NAME.replaced-N`, cached features, downloads that a run left. `--yes` does
not ask. Prefect's runs of more than 30 days go by themselves (flows/serving/prefect_server.py).
"""

import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from flows.command import Command, read_config, run_command
from flows.pipeline_config import PipelineConfig
from model.checkpoints import end_of
from storage.errors import PipelineError
from storage.layout import Layout
from storage.records.model import FromTraining, parse_name
from tasks.asked import asked_models, done_of, jobs_of, leading_of
from tasks.inputs import prepare_benchmarks
from tasks.models import is_gone, trained
from tasks.running.console import say
from tasks.running.turns import turn
from tasks.train import is_finished


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = Command("prune", __doc__)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    options = parser.parse_args(arguments)
    config, layout = read_config(options)
    with ExitStack() as stack:
        for unit in ("evaluate", *(f"train/{training.name}" for training in config.train)):
            stack.enter_context(turn(unit, layout.lock(unit), "refuse"))
        stack.enter_context(turn("fetch", layout.locks / "fetch.lock", "refuse"))
        kinds = freeable(config, layout)
        for what, paths in kinds.items():
            say(f"{_megabytes(paths)}  {what}")
            for path in paths:
                say(f"{'':13}{path.relative_to(layout.workspace)}")
        found = [path for paths in kinds.values() for path in paths]
        if not found:
            say("prune: there is nothing to free")
        elif options.yes or _is_agreed(found):
            for path in found:
                shutil.rmtree(path)
            say("prune: done")
    return 0


def freeable(config: PipelineConfig, layout: Layout) -> dict[str, list[Path]]:
    """Folders that may go, by kind; looks at everything and changes nothing."""
    kinds = {
        "checkpoints whose evaluations stand": measured_checkpoints(config, layout),
        "replaced by a later run": [
            path
            for path in sorted(layout.root.rglob("*.replaced-*"))
            if not any(".replaced-" in part for part in path.relative_to(layout.root).parts[:-1])
        ],
        "features, made again where they are missing": [layout.workspace / "features"],
        "downloads that a fetch left": [layout.downloads],
    }
    there = {what: [path for path in paths if path.is_dir()] for what, paths in kinds.items()}
    return {what: paths for what, paths in there.items() if paths}


def measured_checkpoints(config: PipelineConfig, layout: Layout) -> list[Path]:
    """Intermediate checkpoints of finished trainings whose evaluations all stand.

    Not among them: a training's last, the one that leads, those that another goes on from.
    """
    finished = [each for each in config.train if each.evaluate and is_finished(each, layout)]
    if not finished:
        return []
    asked = asked_models(finished, config.evaluate, layout)
    jobs = jobs_of(asked, prepare_benchmarks(config.evaluate, layout))
    starts = [parse_name(name) for each in config.train for name in each.needs]
    kept = {(start.name, start.step) for start in starts if isinstance(start, FromTraining)}
    done = done_of(jobs, config.evaluate, layout)
    found: list[Path] = []
    for training in finished:
        leading = leading_of(training, jobs, done, config.evaluate, layout)
        end = end_of(training, layout.training(training.name))
        kept |= {(training.name, end), (training.name, leading and leading.step)}
        for model in trained(training.name, layout):
            of_it = [job for job in jobs if job.asked.model.digest == model.digest]
            stands = all(job.key in done for job in of_it)
            step = model.training.step if model.training else None
            is_asked_for = step is not None and training.checkpoints.is_marked(step)
            is_kept = is_asked_for or (training.name, step) in kept
            if of_it and stands and not is_kept and not is_gone(model):
                found.append(Path(model.path))
    return found


def _megabytes(paths: Sequence[Path]) -> str:
    files = [file for path in paths for file in path.rglob("*") if file.is_file()]
    return f"{sum(file.lstat().st_size for file in files) / 1e6:8,.1f} MB"


def _is_agreed(paths: Sequence[Path]) -> bool:
    if not sys.stdin.isatty():
        msg = "nothing was freed: agree by --yes"
        raise PipelineError(msg)
    return input(f"free {_megabytes(paths).strip()}? [y/N] ").strip().lower() in {"y", "yes"}


if __name__ == "__main__":
    run_command(main)
