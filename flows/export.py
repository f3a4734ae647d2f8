"""A checkpoint as others load it: `python -m flows.export NAME@STEP --merge --to DIR`.

DIR gets what plain transformers, vLLM and the hub take: weights, processor, and a model card with
the results that the experiment's report has of it.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from flows.command import Command, read_config, run_command
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


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = Command("export", __doc__)
    parser.add_argument("model", help="NAME@STEP, or a training's NAME for its last checkpoint")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--merge", action="store_true", help="put a LoRA adapter into its base")
    parser.add_argument("--dtype", choices=["bf16", "fp32"], default="bf16", help="of the weights")
    parser.add_argument(
        "--whole", metavar="OMNI", help="write a copy of this whole Omni with the trained thinker"
    )
    options = parser.parse_args(arguments)
    _, layout = read_config(options)
    model = resolve(TRAINING_PREFIX + options.model, layout)
    target: Path = options.to
    if target.exists():
        msg = f"{target} is there already; give --to a folder that is not"
        raise PipelineError(msg)
    has_adapter = base_of(model.path) is not None
    if has_adapter and options.whole and not options.merge:
        msg = f"{options.model} is an adapter: --whole needs --merge as well"
        raise PipelineError(msg)
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    if has_adapter and not options.merge:
        _copy_adapter(Path(model.path), part)
    else:
        part.parent.mkdir(parents=True, exist_ok=True)
        run_network(
            "export",
            layout.models / "export.log",
            model=model.path,
            folder=str(part),
            precision=options.dtype,
            omni=options.whole,
        )
    (part / "README.md").write_text(card(model, layout), encoding="utf-8")
    part.rename(target)
    say(f"{model.key} is in {target}; to publish it: hf upload OWNER/NAME {target}")
    return 0


def card(model: ModelRef, layout: Layout) -> str:
    """The checkpoint's model card, with its rows of the experiment's leaderboard."""
    text = (Path(model.path) / "README.md").read_text(encoding="utf-8")
    report = layout.site / "report.json"
    if model.training is None or not report.is_file():
        return text
    rows = [
        row
        for row in leaderboard.rows(Report.read(report))
        if (row.training, row.step) == (model.training.name, model.training.step)
    ]
    return text.replace(RESULTS, f"Results:\n\n{exports.to_markdown(rows)}") if rows else text


def _copy_adapter(folder: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for file in folder.iterdir():
        if is_loaded(file):
            shutil.copy(file, target / file.name)


if __name__ == "__main__":
    run_command(main)
