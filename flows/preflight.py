"""Preflight: does this host have what a profile needs? Exit code 1 if something is missing.

`python -m flows.preflight --profile paper`, before a stage of days. `--offline` asks nobody and
names what must be brought along, and where it goes.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from flows.command import Command, read_config, run_command
from flows.pipeline_config import PipelineConfig, StageName, known_settings
from model.config import ModelConfig, TrainConfig
from storage.errors import PipelineError
from storage.host.checks import (
    Finding,
    check_disk,
    check_port,
    check_python,
    check_writable,
    shared_memory_bytes,
)
from storage.host.gpus import visible_gpus
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
SHARED_MEMORY_WANTED = 1 << 30  # containers give 64 MB unless told: --shm-size, or emptyDir: Memory


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = Command("preflight", __doc__)
    parser.add_argument("--offline", action="store_true", help="ask nobody; name what to bring")
    parser.add_argument("--settings", action="store_true", help="list every key that can be set")
    options = parser.parse_args(arguments)
    if options.settings:
        for setting in known_settings():
            default = f" = {setting.default}" if setting.default else ""
            sys.stdout.write(f"{setting.key}: {setting.type}{default}\n")
            sys.stdout.write(f"    {setting.text} ({setting.source})\n")
        return 0
    config, layout = read_config(options)
    # A model that three trainings start from is one line.
    findings = list(dict.fromkeys(preflight(config, layout, offline=options.offline)))
    console = Console(soft_wrap=True, highlight=False)
    for finding in findings:
        line = Text(f"{finding.level:<8}", style=STYLES[finding.level])
        console.print(line.append(printable(f"{finding.subject}: {finding.text}"), style="default"))
    counts = {level: sum(each.level == level for each in findings) for level in STYLES}
    console.print(", ".join(f"{count} {level}" for level, count in counts.items()))
    return 1 if counts["error"] else 0


def preflight(config: PipelineConfig, layout: Layout, *, offline: bool) -> list[Finding]:
    """Every finding about this host, for a profile."""
    return [
        *check_python(ROOT / "pyproject.toml"),
        *check_writable(layout.workspace),
        *check_fetch_tools(config.fetch, datetime.now(UTC)),
        _check_disk(config.train, config, layout, num_clips=_clips_to_fetch(config, layout)),
        *_check_ports(config),
        *_check_gpus(config, layout, offline=offline),
        *_check_downloads(config, layout, offline=offline),
    ]


def check_stage(stage: StageName, config: PipelineConfig, layout: Layout) -> None:
    """Look at what a long stage needs before it starts; warnings are told.

    Raises:
        PipelineError: If something is missing; a line each.
    """
    findings = check_writable(layout.workspace)
    if stage == "train":
        findings.append(_check_disk(config.train, config, layout, num_clips=0))
        findings += _check_gpus(config, layout, offline=False)
    elif stage == "evaluate":
        starts = start_models(config.train)
        used = [
            starts[each.name] for each in config.train if each.evaluate and config.evaluate.base
        ]
        findings += _check_evaluated(config, layout, used, offline=False)
    _tell(stage, findings)


def check_fetch(config: PipelineConfig, layout: Layout, due: Sequence[Clip]) -> None:
    """Look at what these clips need before the first is asked for.

    Raises:
        PipelineError: If something is missing; a line each.
    """
    findings = check_writable(layout.workspace)
    findings.append(_check_disk((), config, layout, num_clips=len(due)))
    findings += check_fetch_tools(config.fetch, datetime.now(UTC))
    findings += check_sources(config.fetch, offline=False, video_id=due[0].video_id)
    _tell("fetch", findings)


def _tell(stage: StageName, findings: Sequence[Finding]) -> None:
    for finding in dict.fromkeys(findings):
        if finding.level == "warning":
            say(f"{stage}: {finding.subject}: {finding.text}")
    lines = [f"  {each.subject}: {each.text}" for each in findings if each.level == "error"]
    if lines:
        missing = "\n".join(dict.fromkeys(lines))
        msg = f"this host is not ready for {stage}:\n{missing}"
        raise PipelineError(msg)


def _check_disk(
    trainings: Sequence[TrainConfig], config: PipelineConfig, layout: Layout, *, num_clips: int
) -> Finding:
    needs = disk_needs(trainings, config.fetch, num_clips, layout.models)
    return check_disk(layout.workspace, needs)


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


def _check_ports(config: PipelineConfig) -> list[Finding]:
    findings = [
        check_port(4200, "Prefect's server", "make serve with --port"),
        check_port(8090, "the reports", "make serve with --report-port"),
    ]
    if config.world is not None:
        option = f"--set world.port={config.world.port + 1}"
        findings.append(check_port(config.world.port, "the made world's media", option))
    return findings


def _check_gpus(config: PipelineConfig, layout: Layout, *, offline: bool) -> list[Finding]:
    try:
        gpus = visible_gpus()
    except PipelineError as error:
        return [Finding("error", "gpus", str(error))]
    names = ", ".join(f"{gpu.name}: {gpu.model}" for gpu in gpus)
    findings = [Finding("ok", "gpus", names or "none")]
    memory = shared_memory_bytes()
    if gpus and memory is not None and memory < SHARED_MEMORY_WANTED:
        text = f"{memory >> 20} MB; data workers need 1 GB: docker --shm-size=8g"
        findings.append(Finding("warning", "shared memory", text))
    models = start_models(config.train)
    for training in config.train:
        start = models[training.name]
        findings += check_training(training, gpus, start, layout.models, offline=offline)
    return findings


def _check_downloads(config: PipelineConfig, layout: Layout, *, offline: bool) -> list[Finding]:
    findings: list[Finding] = []
    if config.world is None:  # a made world brings its own
        files = (config.avqa.train, config.avqa.validation) if config.avqa else ()
        for path in filter(None, files):
            findings += check_file(path, "annotations", offline=offline)
        findings += [
            found for source in config.data for found in check_data(source, offline=offline)
        ]
        for benchmark in config.evaluate.benchmarks:
            findings += check_benchmark(benchmark, layout, offline=offline)
    findings += check_sources(config.fetch, offline=offline)
    return findings + _check_evaluated(config, layout, [], offline=offline)


def _check_evaluated(
    config: PipelineConfig, layout: Layout, trained_from: Sequence[str], *, offline: bool
) -> list[Finding]:
    """The models that no training makes: those trained from, and the profile's further ones."""
    try:
        gpus = visible_gpus()
    except PipelineError:  # told by the check of the GPUs
        gpus = []
    models = dict.fromkeys(
        [
            *trained_from,
            *(model.model for model in config.evaluate.models if isinstance(model, ModelConfig)),
        ]
    )
    return [
        finding
        for model in models
        for finding in check_evaluated(model, config.evaluate, gpus, layout.models, offline=offline)
    ]


if __name__ == "__main__":
    run_command(main)
