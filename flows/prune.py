"""Prune: free what the disk holds and nothing needs any more; sizes first, then a question.

It names checkpoints of finished trainings that the setting `checkpoints` does not keep (never the
last one, none that another training starts from), what was kept aside as `NAME.replaced-N`, cached
features, downloads that a run left. `--yes` does not ask. Prefect's runs of more than 30 days go by
themselves (flows/serving/prefect_server.py).
"""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from flows.command import Command, run_command
from flows.pipeline_config import PipelineConfig
from storage.errors import PipelineError
from storage.layout import Layout
from storage.records.model import FromTraining, parse_name
from tasks.asked import evaluate_unit, jobs_of, leading_steps
from tasks.cost import bytes_in
from tasks.models import is_gone, trained
from tasks.running.console import say
from tasks.running.turns import turn
from tasks.train import is_finished


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = Command("prune", __doc__)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    options, config, layout = parser.read(arguments)
    with ExitStack() as stack:
        for unit in ("evaluate", *(f"train/{training.name}" for training in config.train)):
            stack.enter_context(turn(unit, layout.lock(unit), "refuse"))
        stack.enter_context(turn("fetch", layout.locks / "fetch.lock", "refuse"))
        kinds = _freeable(config, layout)
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


def _freeable(config: PipelineConfig, layout: Layout) -> dict[str, list[Path]]:
    """Folders that may go, by kind; looks at everything and changes nothing."""
    aside = sorted(layout.root.rglob("*.replaced-*"))
    kinds = {
        "checkpoints that the setting `checkpoints` does not keep": _settled(config, layout),
        "replaced by a later run": [
            path for path in aside if not any(other in path.parents for other in aside)
        ],
        "features, made again where they are missing": [layout.workspace / "features"],
        "downloads that a fetch left": [layout.downloads],
    }
    there = {what: [path for path in paths if path.is_dir()] for what, paths in kinds.items()}
    return {what: paths for what, paths in there.items() if paths}


def _settled(config: PipelineConfig, layout: Layout) -> Iterator[Path]:
    """The checkpoints of finished trainings that nothing needs and the settings let go."""
    finished = [each for each in config.train if is_finished(each, layout)]
    if not finished:
        return
    jobs = jobs_of(finished, config.evaluate, layout)
    starts = [parse_name(name) for each in config.train for name in each.needs]
    needed = {(start.name, start.step) for start in starts if isinstance(start, FromTraining)}
    leads = leading_steps(jobs, finished, config.evaluate, layout)
    for training in finished:
        for model in trained(training.name, layout)[:-1]:
            step = model.training.step if model.training else 0
            if (training.name, step) in needed or is_gone(model):
                continue
            of_it = [job for job in jobs if job.asked.model.digest == model.digest]
            units = [evaluate_unit(job, config.evaluate, layout) for job in of_it]
            stands = bool(units) and all(unit.stands() for unit in units)
            is_best = leads.get(training.name) == step
            if training.checkpoints.may_go(step, is_measured=stands, is_best=is_best):
                yield Path(model.path)


def _megabytes(paths: Sequence[Path]) -> str:
    return f"{sum(map(bytes_in, paths)) / 1e6:8,.1f} MB"


def _is_agreed(paths: Sequence[Path]) -> bool:
    if not sys.stdin.isatty():
        msg = "nothing was freed: agree by --yes"
        raise PipelineError(msg)
    return input(f"free {_megabytes(paths).strip()}? [y/N] ").strip().lower() in {"y", "yes"}


if __name__ == "__main__":
    run_command(main)
