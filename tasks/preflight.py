"""What a profile's trainings and sources need of this host: memory, tools, networks.

GPU memory is model/train/estimates.py's estimate; disk and hours are in tasks/cost.py.
"""

from collections.abc import Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from model.config import EvaluateConfig, TrainConfig
from model.train.estimates import estimate, estimate_inference
from storage.benchmarks.published import find_description, find_prepared
from storage.config import BenchmarkConfig, FetchConfig, HubData, HuggingFaceSource, YoutubeSource
from storage.data.source import DataSource
from storage.errors import PipelineError
from storage.fetch.requirements import check_tools, find_js_runtime, ytdlp_version
from storage.fetch.youtube import is_youtube
from storage.host.checks import GB, Finding, check_hub, check_url, check_ytdlp_age
from storage.host.ffmpeg import ffmpeg_version
from storage.host.gpus import Gpu
from storage.layout import Layout
from storage.records.model import FolderOrHub, Random, parse_name
from storage.records.sizes import ModelSizes
from storage.records.training import base_of
from tasks.models import sizes_of

BIG_MODEL = 1e9  # parameters from which a CPU is no place to train
WORK_SHARE = 0.85  # of a GPU's memory; the estimate is good to 15%
REMEDY = "on a host with access run `hf download {}`, bring the folder printed, and "


def check_fetch_tools(config: FetchConfig, now: datetime) -> list[Finding]:
    """Ffmpeg, and what YouTube needs: yt-dlp, its scripts, a JS runtime."""
    try:
        check_tools(config)
    except PipelineError as error:
        return [Finding("error", "tools", str(error))]
    findings = [Finding("ok", "ffmpeg", ffmpeg_version())]
    if any(isinstance(source, YoutubeSource) for source in config.sources):
        findings.append(Finding("ok", "js runtime", find_js_runtime() or "none; none is needed"))
        findings.append(check_ytdlp_age(ytdlp_version, now))
    return findings


def check_sources(
    config: FetchConfig, *, offline: bool, video_id: str | None = None
) -> list[Finding]:
    """Whether each source of audio can be reached; a mirror is asked for a video that is due."""
    findings: list[Finding] = []
    for source in config.sources:
        if isinstance(source, HuggingFaceSource):
            remedy = "drop it from fetch.sources, or give a local folder as its `dataset`"
            findings.append(check_hub(source.dataset, "dataset", offline=offline, remedy=remedy))
        elif isinstance(source, YoutubeSource):
            findings += _check_youtube(source, video_id, offline=offline)
        elif source.path.is_dir():
            findings.append(Finding("ok", "folder", f"{source.path}"))
        else:
            text = f"{source.path} is no folder; correct fetch.sources"
            findings.append(Finding("error", "folder", text))
    return findings


def _check_youtube(source: YoutubeSource, video_id: str | None, *, offline: bool) -> list[Finding]:
    url = site = "/".join(source.url_template.split("/")[:3])
    if site.startswith("http://127.0.0.1"):
        return []  # served by the run itself
    if offline:
        text = (
            f"{site} cannot be reached offline; bring the workspace's clips/ and ledger.sqlite "
            "from a host that has fetched, or `fetch.sources: [{kind: folder, path: DIR}]`"
        )
        return [Finding("error", "network", text)]
    if video_id is not None and not is_youtube(source.url_template):
        url = source.url_template.replace("{video_id}", video_id)
    remedy = "check the network or `ytdlp: {proxy: URL}` in fetch.sources"
    return check_url(url, "source of audio", remedy, any_answer=True)


def check_benchmark(config: BenchmarkConfig, layout: Layout, *, offline: bool) -> list[Finding]:
    """Whether a benchmark's questions and clips are here or can be had."""
    folder = find_prepared(config, layout.benchmarks)
    if folder and (folder / "clips.json").exists():
        return [Finding("ok", "benchmark", f"{config.name} is prepared in {folder}")]
    published = find_description(config)
    purpose = f"questions of {config.name}"
    questions = config.questions or published.questions
    if questions or not published.rows:
        findings = check_file(questions or "", purpose, offline=offline)
    else:
        remedy = f"bring {purpose} as a file and set `questions`"
        findings = [check_hub(published.rows.dataset, "dataset", offline=offline, remedy=remedy)]
    if config.silence:
        return findings
    remedy = f"bring its clips as a folder and set evaluate.benchmarks' `audio` of {config.name}"
    published_audio = [source.dataset for source in published.audio]
    found = [  # one of them is enough; without any the rows hold the clips
        check_hub(name, "dataset", offline=offline, remedy=remedy)
        for name in ([config.audio] if config.audio else published_audio)
    ]
    return findings + ([each for each in found if each.level == "ok"] or found)[:1]


def check_file(path_or_url: str, purpose: str, *, offline: bool) -> list[Finding]:
    """Whether a file of the profile is there, or its address answers."""
    if not path_or_url.startswith(("http://", "https://")):
        is_there = Path(path_or_url).exists()
        text = f"{path_or_url} ({purpose})" + ("" if is_there else " is missing")
        return [Finding("ok" if is_there else "error", "file", text)]
    remedy = "download it elsewhere and set its key to the path"
    if offline:
        return [Finding("error", "file", f"{path_or_url} ({purpose}): {remedy}")]
    return check_url(path_or_url, purpose, remedy)


def check_data(source: DataSource, *, offline: bool) -> list[Finding]:
    """Whether a source of training rows besides AVQA is here or can be had."""
    purpose = f"training rows, {source.label}"
    if isinstance(source, HubData):
        return [check_hub(source.dataset, "dataset", offline=offline, remedy=source.remedy)]
    return check_file(str(source.file), purpose, offline=offline) if source.file else []


def check_training(
    training: TrainConfig, gpus: Sequence[Gpu], start_model: str, models: Path, *, offline: bool
) -> list[Finding]:
    """Whether a training's start model, behind its `training:` references, can be had and fits."""
    subject = f"training {training.name}"
    if training.num_gpus is not None and gpus and training.num_gpus > len(gpus):
        text = f"asks for {training.num_gpus} GPUs, {len(gpus)} may be used; lower num_gpus"
        return [Finding("error", subject, text)]
    used = gpus[: training.num_gpus]
    if refused := check_settings(training, len(used)):
        return refused
    if isinstance(parse_name(start_model), Random):
        return [Finding("ok", subject, f"{start_model} is made here and fits anywhere")]
    remedy = REMEDY.format(start_model) + "`--set train.model=FOLDER`"
    findings = [check_hub(start_model, "model", offline=offline, remedy=remedy)]
    try:
        sizes = sizes_of(start_model, models)
    except PipelineError as error:
        return [*findings, Finding("error", subject, str(error))]
    if sizes is None:
        text = f"how much memory {start_model} needs is told once it is on this host"
        return [*findings, Finding("warning", subject, text)]
    return [*findings, check_memory(training, used, sizes)]


def check_settings(training: TrainConfig, num_gpus: int) -> list[Finding]:
    """What the settings ask for and a host lacks, before a model of 7B is loaded for it."""
    subject = f"training {training.name}"
    try:
        training.num_passes(max(1, num_gpus) * training.num_hosts)
    except PipelineError as error:
        return [Finding("error", subject, str(error))]
    is_8_bit, is_flex = training.optimizer == "adamw-8bit-sr", training.attention == "flex"
    is_verified = training.method == "grpo" and training.grpo.accuracy_rule == "math-verify"
    compiled = "attention flex" if is_flex else "optimizer adamw-8bit-sr"
    wanted = [
        *((True, f"report_to {name}", name) for name in training.report_to),
        (is_8_bit, "optimizer adamw-8bit-sr", "torchao"),
        (training.lora is not None, "lora", "peft"),
        (is_verified, "accuracy_rule math-verify", "math_verify"),
        ((is_8_bit or is_flex) and num_gpus > 0, compiled, "triton"),
    ]
    missing = [
        f"{setting} needs the package {package}, which is not installed"
        for is_wanted, setting, package in wanted
        if is_wanted and find_spec(package) is None
    ]
    if (is_8_bit or is_flex) and not any(which(name) for name in ("cc", "gcc", "clang")):
        missing.append(f"{compiled} is compiled and needs a C compiler: install gcc")
    return [Finding("error", subject, text) for text in missing]


def check_memory(training: TrainConfig, gpus: Sequence[Gpu], sizes: ModelSizes) -> Finding:
    """Whether a training fits into each GPU, at its largest moment."""
    subject = f"training {training.name}"
    if not gpus:
        if sizes.total < BIG_MODEL:
            return Finding("ok", subject, f"{sizes.total:.2g} parameters, on the CPU")
        text = (
            f"{sizes.total / 1e9:.1f} B parameters and no GPU; use a host with GPUs, or look at "
            "`nvidia-smi` if this is one"
        )
        return Finding("error", subject, text)
    needed = estimate(training, sizes, num_gpus=len(gpus) * training.num_hosts)
    cards = [gpu.memory_bytes for gpu in gpus if gpu.memory_bytes]
    if not cards:
        return Finding("warning", subject, f"wants {needed.text()}; nvidia-smi tells no sizes")
    hosts = f"{training.num_hosts} hosts with " if training.num_hosts > 1 else ""
    text = f"{hosts}{len(gpus)} GPU(s) of {min(cards) / GB:.0f} GB; it wants {needed.text()}"
    if needed.total > min(cards):
        remedy = "more GPUs with sharding zero2 or fsdp, precision bf16 with adamw-8bit-sr, or lora"
        return Finding("error", subject, f"{text}: {remedy}")
    if needed.total > WORK_SHARE * min(cards):
        remedy = "it will be tight; gradient_checkpointing: true"
        return Finding("warning", subject, f"{text}: {remedy}")
    return Finding("ok", subject, text)


def check_evaluated(
    model: str, config: EvaluateConfig, gpus: Sequence[Gpu], models: Path, *, offline: bool
) -> list[Finding]:
    """Whether a model to evaluate can be had, and its weights fit a GPU: each process has one."""
    if not isinstance(parse_name(model), FolderOrHub):
        return []
    remedy = REMEDY.format(model) + "give it as its `model` in evaluate.models"
    names = filter(None, (model, base_of(model)))  # an adapter has a base
    findings = [check_hub(name, "model", offline=offline, remedy=remedy) for name in names]
    cards = [gpu.memory_bytes for gpu in gpus if gpu.memory_bytes]
    try:
        sizes = sizes_of(model, models) if cards else None
    except PipelineError as error:
        return [*findings, Finding("error", "model", str(error))]
    if sizes is not None and (needed := estimate_inference(config, sizes)) > min(cards):
        wants = f"{model} wants {needed / GB:.0f} GB of a GPU, {min(cards) / GB:.0f} GB are there"
        findings.append(Finding("error", "model", f"{wants}; use another: CUDA_VISIBLE_DEVICES"))
    return findings
