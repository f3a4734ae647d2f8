"""Preflight: does this host have what a profile needs? Exit code 1 if something is missing.

`python -m flows.preflight --profile paper`, before a stage of days. `--offline` asks nobody and
names what must be brought along, and where it goes.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from flows.command import Command, run_command
from flows.pipeline_config import STAGES, PipelineConfig, StageName, known_settings
from model.config import ModelConfig
from storage.errors import PipelineError
from storage.host.checks import Finding, check_disk, check_port, check_python, check_writable
from storage.host.gpus import Gpu, visible_gpus
from storage.layout import Layout
from storage.records.clip import Clip
from storage.text import printable
from tasks.cost import disk_needs, most_clips, start_models
from tasks.fetch import due_clips
from tasks.inputs import read_annotations
from tasks.preflight import (
    check_benchmark,
    check_data,
    check_evaluated,
    check_fetch_tools,
    check_file,
    check_sources,
    check_training,
)
from tasks.running.console import say

ROOT = Path(__file__).parents[1]
STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = Command("preflight", __doc__)
    parser.add_argument("--offline", action="store_true", help="ask nobody; name what to bring")
    parser.add_argument("--settings", action="store_true", help="list every key that can be set")
    options, config, layout = parser.read(arguments)
    if options.settings:
        print("\n".join(f"{key}: {text}" for key, text in known_settings().items()))
        return 0
    # A model that three trainings start from is one line.
    findings = list(dict.fromkeys(preflight(config, layout, offline=options.offline)))
    console = Console(soft_wrap=True, highlight=False)
    for finding in findings:
        line = Text(f"{finding.level:<8}", style=STYLES[finding.level])
        console.print(line.append(printable(f"{finding.subject}: {finding.text}"), style="default"))
    counts = Counter(finding.level for finding in findings)
    console.print(", ".join(f"{counts[level]} {level}" for level in STYLES))
    return 1 if counts["error"] else 0


def preflight(config: PipelineConfig, layout: Layout, *, offline: bool) -> list[Finding]:
    """Every finding about this host, for a profile."""
    num_clips = _clips_to_fetch(config, layout)
    findings = [
        *check_python(ROOT / "pyproject.toml"),
        *_check_stages(STAGES, config, layout, num_clips, offline=offline),
        check_port(4200, "Prefect's server", "make serve with --port"),
        check_port(8090, "the reports", "make serve with --report-port"),
    ]
    if config.world is not None:  # it brings its own files
        option = f"--set world.port={config.world.port + 1}"
        return [*findings, check_port(config.world.port, "the made world's media", option)]
    files = (config.avqa.train, config.avqa.validation) if config.avqa else ()
    for path in filter(None, files):
        findings += check_file(path, "annotations", offline=offline)
    for source in config.data:
        findings += check_data(source, offline=offline)
    for benchmark in config.evaluate.benchmarks:
        findings += check_benchmark(benchmark, layout, offline=offline)
    return findings


def check_stage(
    stage: StageName, config: PipelineConfig, layout: Layout, due: Sequence[Clip] = ()
) -> None:
    """Look at what a long stage needs before it starts, a fetch for the clips that are `due`.

    Warnings are told; what is missing is raised as a PipelineError, a line each.
    """
    video_id = due[0].video_id if due else None
    found = _check_stages([stage], config, layout, len(due), offline=False, video_id=video_id)
    findings = list(dict.fromkeys(found))
    for finding in findings:
        if finding.level == "warning":
            say(f"{stage}: {finding.subject}: {finding.text}")
    lines = [f"\n  {each.subject}: {each.text}" for each in findings if each.level == "error"]
    if lines:
        msg = f"this host is not ready for {stage}:{''.join(lines)}"
        raise PipelineError(msg)


def _check_stages(
    stages: Sequence[StageName],
    config: PipelineConfig,
    layout: Layout,
    num_clips: int,
    *,
    offline: bool,
    video_id: str | None = None,
) -> list[Finding]:
    findings = check_writable(layout.workspace)
    starts = start_models(config.train)
    trainings = config.train if "train" in stages else ()
    if trainings or "fetch" in stages:
        needs = disk_needs(trainings, config.fetch, num_clips, layout.models)
        findings.append(check_disk(layout.workspace, needs))
    if "fetch" in stages:
        findings += check_fetch_tools(config.fetch, datetime.now(UTC))
        findings += check_sources(config.fetch, offline=offline, video_id=video_id)
    if "train" in stages:
        gpus, found = usable_gpus()
        findings.append(found)
        for training in trainings if found.level == "ok" else ():
            start = starts[training.name]
            findings += check_training(training, gpus, start, layout.models, offline=offline)
    if "evaluate" in stages:
        gpus, _ = usable_gpus()
        # What trainings start from is looked at with them.
        as_base = () if trainings or not config.evaluate.base else config.train
        used = [starts[training.name] for training in as_base if training.evaluate]
        own = [entry.model for entry in config.evaluate.models if isinstance(entry, ModelConfig)]
        for name in dict.fromkeys([*used, *own]):
            findings += check_evaluated(name, config.evaluate, gpus, layout.models, offline=offline)
    return findings


def usable_gpus() -> tuple[list[Gpu], Finding]:
    """The GPUs of this host that may be used, none where one that is named is not there."""
    try:
        gpus = visible_gpus()
    except PipelineError as error:
        return [], Finding("error", "gpus", str(error))
    names = ", ".join(f"{gpu.name}: {gpu.model}" for gpu in gpus)
    return gpus, Finding("ok", "gpus", names or "none")


def _clips_to_fetch(config: PipelineConfig, layout: Layout) -> int:
    """Clips that are due; for annotations that are not on this host, AVQA's number at most."""
    if config.world is not None or config.avqa is None:
        return 0
    if config.avqa.train.startswith(("http://", "https://")):
        num_there = sum(1 for _ in layout.clips.glob("*.wav"))
        return max(0, most_clips(config.fetch) - num_there)
    try:
        annotations = read_annotations(config.avqa, layout, config.fetch.limit)
        return len(due_clips(annotations, config.fetch, layout).clips)
    except PipelineError:  # told by the check of the annotations, or of the sources
        return 0


if __name__ == "__main__":
    run_command(main)
