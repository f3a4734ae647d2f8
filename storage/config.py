"""The settings of fetching, converting and of the benchmarks; the base of every settings class.

Every key of a profile is a field of one of these classes. A field's docstring is what Prefect's
form shows. A field says whether it decides what its stage makes: those that do not are marked
`Annotated[float, Idle]`, and changing one neither makes anything again nor keeps a run from being
resumed.
"""

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator

from storage.errors import PipelineError

# A name that becomes a file's or a folder's: it cannot lead anywhere else.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
WATCH_PAGE = "https://www.youtube.com/watch?v={video_id}"
# What of yt-dlp's options may be set: who asks, from where and how fast. What is downloaded, where
# to, and what becomes of it is fetching's own.
YTDLP_OPTIONS = """
ap_mso ap_password ap_username buffersize client_certificate client_certificate_key
client_certificate_password concurrent_fragment_downloads cookiefile cookiesfrombrowser
extractor_args extractor_retries fragment_retries geo_bypass geo_bypass_country geo_bypass_ip_block
geo_verification_proxy http_chunk_size http_headers impersonate js_runtimes legacyserverconnect
max_sleep_interval netrc_location nocheckcertificate password prefer_insecure proxy ratelimit
remote_components retries sleep_interval sleep_interval_requests socket_timeout source_address
usenetrc username videopassword
"""
# Options that are secrets: settings stand in reports, commands and Prefect's database.
SECRET_OPTION = re.compile(r"password|authorization|token|^cookie$", re.IGNORECASE)
Waits = tuple[Annotated[float, Field(ge=0)], ...]
# What to do while another run is at the same unit of work.
WhenBusy = Literal["wait", "refuse"]


class Config(BaseModel):
    """Frozen settings; an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        # Prefect's form names a field as a profile and `--set` do, not `Clip Length S`.
        field_title_generator=lambda name, _field: name,
    )


class Idle:
    """Mark of a field that decides nothing of what its stage makes (how fast, what is told)."""


def deciding(config: Config) -> dict[str, Any]:
    """The settings that decide what a stage makes, as JSON: all fields but those marked `Idle`."""
    dumped = config.model_dump(mode="json")
    return {
        name: _deciding_of(getattr(config, name), dumped[name])
        for name, field in type(config).model_fields.items()
        if Idle not in field.metadata
    }


def _deciding_of(value: object, dumped: Any) -> Any:  # noqa: ANN401  a field's value as JSON
    if isinstance(value, Config):
        return deciding(value)
    if isinstance(value, tuple):
        entries = cast("tuple[object, ...]", value)
        return [_deciding_of(*pair) for pair in zip(entries, dumped, strict=True)]
    return dumped


class AnnotationsConfig(Config):
    """Where AVQA's questions come from."""

    train: str = (
        "https://raw.githubusercontent.com/AlyssaYoung/AVQA/main/data/annotation/train_qa.json"
    )
    """Path or URL of train_qa.json; the published file is checked against its git blob id."""
    validation: str | None = None
    """Path or URL of val_qa.json, from which checkpoints are chosen; None: no validation file."""
    validation_size: Annotated[int, Field(ge=1)] = 1000
    """Number of validation questions to use, taken evenly over the file."""


class YoutubeSource(Config):
    """Fetch each video by yt-dlp."""

    kind: Literal["youtube"] = "youtube"
    url_template: Annotated[str, Field(pattern=r"\{video_id\}")] = WATCH_PAGE
    """Address of a video; `{video_id}` is replaced. Another template fetches from a mirror."""
    ytdlp: dict[str, Any] = {}
    """Options of yt-dlp's own, by their names in its Python interface, e.g. `{cookiesfrombrowser:
    firefox, proxy: URL, impersonate: chrome, extractor_args: {youtube: {player_client: [web]}}}`.
    Cookies are off by default: they can get the account banned. A secret is named by its place:
    `{password: "env:YT_PASSWORD", proxy: "file:~/proxy"}`."""

    @field_validator("ytdlp")
    @classmethod
    def _check_ytdlp(cls, options: dict[str, Any]) -> dict[str, Any]:
        known = YTDLP_OPTIONS.split()
        refused = [name for name in options if name not in known]
        if refused:
            raise ValueError(
                f"{', '.join(refused)}: not passed on, as fetching sets it itself, or the account "
                f"of clips would break; of yt-dlp's options there are {', '.join(known)}"
            )
        return with_texts(options, _refuse_open)

    @property
    def revealed_ytdlp(self) -> dict[str, Any]:
        """The options with the secrets that they name."""
        return with_texts(self.ytdlp, lambda _name, text: reveal(text))


def _refuse_open(name: str, text: str) -> str:
    is_secret = SECRET_OPTION.search(name) or (name.endswith("proxy") and "@" in text)
    if is_secret and not text.startswith(("env:", "file:")):
        raise ValueError(
            f"ytdlp.{name} is a secret, and settings are shown in reports and in Prefect: name its "
            f"place, `{name}: env:VARIABLE` or `{name}: file:PATH`"
        )
    return text


def with_texts(value: Any, change: Callable[[str, str], str], name: str = "") -> Any:  # noqa: ANN401  an option of any shape
    """The same with each text changed, by the nearest key above it and the text."""
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {key: with_texts(inner, change, key) for key, inner in items}
    if isinstance(value, list):
        return [with_texts(inner, change, name) for inner in cast("list[Any]", value)]
    return change(name, value) if isinstance(value, str) else value


def reveal(text: str) -> str:
    """The secret that `env:VARIABLE` or `file:PATH` names, or PipelineError; other texts as is."""
    kind, _, place = text.partition(":")
    try:
        if kind == "env":
            return os.environ[place]
        return Path(place).expanduser().read_text().strip() if kind == "file" else text
    except (KeyError, OSError) as error:
        raise PipelineError(f"{text} names a secret, and there is none") from error


class FolderSource(Config):
    """Take media files from a folder, named by clip (`<id>_<start>`, as VGGSound's) or video id."""

    kind: Literal["folder"] = "folder"
    path: Path
    """Folder, searched with its sub-folders; any container that ffmpeg reads."""


class HubData(Config):
    """A data set on the hub."""

    remedy: ClassVar[str]
    """What to do where it cannot be read."""

    dataset: str
    """Name on the hub, or a local folder in the same format."""
    split: FileName = "train"
    """Split to read."""
    revision: str | None = None
    """Commit or branch; None: the newest when the download begins, which is kept."""

    @property
    def copy_folder(self) -> Path | None:
        """The local folder; None for one on the hub."""
        folder = Path(self.dataset).expanduser()
        return folder if folder.is_dir() else None


class HuggingFaceSource(HubData):
    """Take clips from a data set on the hub, by R1-AQA's names, else by question and choices."""

    remedy: ClassVar[str] = "Name another in fetch.sources, or a folder of its files"

    kind: Literal["huggingface"] = "huggingface"
    dataset: str = "gijs/avqa-processed"
    """Name on the hub, or a local folder in the same format."""


Source = Annotated[YoutubeSource | FolderSource | HuggingFaceSource, Field(discriminator="kind")]


class FetchConfig(Config):
    """How audio is fetched and cut."""

    # What is lost is kept by what it was lost to, clip by clip, so the stage's manifest need not.
    sources: Annotated[tuple[Source, ...], Idle] = (YoutubeSource(),)
    """Tried in this order for each clip; one that is added is asked for what the others lost."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Clips to ask for, of the training rows and of the validation rows each; None: all. A larger
    number later goes on from there."""
    clip_length_s: Annotated[float, Field(gt=0, le=60)] = 10.0
    """Seconds cut from the annotated start; AVQA's clips are 10 s."""
    videos_per_hour: Annotated[Annotated[float, Field(gt=0)] | None, Idle] = 240.0
    """Videos asked for per hour, over all workers; None: no limit (loopback, own mirror).
    YouTube allows a guest about 300."""
    workers: Annotated[int, Field(ge=1, le=16), Idle] = 2
    """Threads that download and cut. More do not help against YouTube, whose limit is the rate."""
    batch_size: Annotated[int, Field(ge=1), Idle] = 150
    """Clips in one Prefect task."""
    deadline_s: Annotated[float, Field(gt=0), Idle] = 180.0
    """Seconds after which the download of one video is given up."""
    retry_waits_s: Annotated[Waits, Idle] = (30.0, 300.0, 3600.0, 86400.0)
    """Waits before a clip whose download broke is tried again; after the last it counts as
    unconfirmed."""
    block_waits_s: Annotated[Waits, Idle] = (1800.0, 7200.0, 21600.0)
    """Waits of all workers after YouTube refuses this address; after the last the run stops with
    exit code 75."""
    drop_silent: bool = False
    """Count a clip whose peak is below -60 dBFS as unusable; by default it is only flagged."""
    keep_media: Annotated[bool, Idle] = False
    """Keep each download in the workspace's media/, about 1.5 MB a video: clips of another length
    or rate are then cut from it, instead of another week of fetching."""
    canary_video_id: str | None = None
    """A video known to exist, asked for before ambiguous failures are believed."""
    min_usable_share: Annotated[float, Field(ge=0, le=1), Idle] = 0.9
    """Smallest share of annotation rows with audio; below it convert stops."""


class ConvertConfig(Config):
    """How R1-AQA's JSON lines are written."""

    audio_dir: str | None = None
    """Folder written in `audio_path`; None: the workspace's clips folder."""


class BenchmarkConfig(Config):
    """A benchmark and where its files are."""

    name: FileName
    """A name from storage/benchmarks (e.g. `mmau-test-mini-v05.15.25`), or any other with
    `questions` given."""
    file: str | None = None
    """Path of a YAML file that describes your own benchmark, as those in storage/benchmarks do."""
    questions: str | None = None
    """Path or URL of the questions (JSON, JSON lines, CSV, parquet), or a data set where the
    benchmark's are one; None: the published address of a known benchmark."""
    audio: str | None = None
    """Folder that the questions' `audio_id` is relative to, or a data set on the hub; None: the
    known one."""
    silence: bool = False
    """Give every question 10 s of zeros instead of audio, for trying things without the audio at
    hand."""
    allow_unreadable: bool = False
    """Go on although some clips cannot be read; their questions count as wrong."""


class WorldConfig(Config):
    """A small made world, served on loopback: annotations, media of all kinds, a benchmark."""

    seed: int = 7
    """Seed of everything in it."""
    port: Annotated[int, Field(ge=1024, le=65535), Idle] = 8631
    """Loopback port of its media server."""
    num_videos: Annotated[int, Field(ge=20)] = 130
    """Videos that the annotations for training speak of."""
    clips_per_video: Annotated[int, Field(ge=1, le=5)] = 4
    """Annotated clips of a video, each with another sound."""
    unusable_share: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of those videos that cannot be used: gone, broken, silent and so on."""
    num_questions: Annotated[int, Field(ge=20)] = 1040
    """Rows of the annotations for training; the clips are asked about in turn."""
    num_validation_questions: Annotated[int, Field(ge=4)] = 60
    """Rows of the annotations for validation, about videos of their own."""
    num_benchmark_questions: Annotated[int, Field(ge=30)] = 180
    """Questions of the benchmark, in sound, music and speech."""
    clip_length_s: Annotated[float, Field(ge=1, le=10)] = 2.0
    """Seconds that hold the sound asked about."""

    @property
    def slot_s(self) -> int:
        """Whole seconds that a clip fills in its video."""
        return math.ceil(self.clip_length_s)
