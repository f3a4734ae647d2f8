"""A checkpoint as others load it: `python -m flows.export NAME@STEP --merge --to DIR`.

DIR gets what plain transformers, vLLM and the hub take: weights, processor, and a model card with
the results that the experiment's report has of it.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from flows.command import Command, run_command
from model.training_record import RESULTS
from reports.numbers import leaderboard
from reports.report import Report
from reports.site import exports
from storage.errors import PipelineError
from storage.layout import Layout
from storage.records.model import TRAINING_PREFIX, ModelRef
from storage.records.training import base_of
from tasks.models import is_loaded, resolve, run_network
from tasks.running.console import say


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = Command("export", __doc__)
    parser.add_argument("model", help="NAME@STEP, or a training's NAME for its last checkpoint")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--merge", action="store_true", help="put a LoRA adapter into its base")
    parser.add_argument("--dtype", choices=["bf16", "fp32"], default="bf16", help="of the weights")
    parser.add_argument("--whole", metavar="OMNI", help="put the thinker into a copy of this Omni")
    options, _, layout = parser.read(arguments)
    model = resolve(TRAINING_PREFIX + options.model, layout)
    target: Path = options.to
    if target.exists():
        msg = f"{target} is there already; give --to a folder that is not"
        raise PipelineError(msg)
    is_copied = base_of(model.path) is not None and not options.merge
    if is_copied and options.whole:
        msg = f"{options.model} is an adapter: --whole needs --merge as well"
        raise PipelineError(msg)
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    (part if is_copied else part.parent).mkdir(parents=True, exist_ok=True)
    if is_copied:
        for file in filter(is_loaded, Path(model.path).iterdir()):
            shutil.copy(file, part)
    else:
        run_network(
            "export",
            layout.models / "export.log",
            model=model.path,
            folder=str(part),
            precision=options.dtype,
            omni=options.whole,
        )
    (part / "README.md").write_text(_card(model, layout), encoding="utf-8")
    part.rename(target)
    say(f"{model.key} is in {target}; to publish it: hf upload OWNER/NAME {target}")


def _card(model: ModelRef, layout: Layout) -> str:
    """The checkpoint's model card, with its rows of the experiment's leaderboard."""
    text = (Path(model.path) / "README.md").read_text(encoding="utf-8")
    report = layout.site / "report.json"
    if model.training is None or not report.is_file():
        return text
    of_model = (model.training.name, model.training.step)
    found = leaderboard.rows(Report.read(report))
    rows = [row for row in found if (row.training, row.step) == of_model]
    return text.replace(RESULTS, f"Results:\n\n{exports.to_markdown(rows)}") if rows else text


if __name__ == "__main__":
    run_command(main)
