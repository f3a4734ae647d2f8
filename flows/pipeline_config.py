"""The configuration of a whole experiment: the stages' settings composed, read from a profile.

A profile is a YAML file of these keys, by name from flows/profiles (`demo`, `paper`, ...) or by
path. Strings may hold `{workspace}` and `{world.port}`. Single keys are changed by
`--set a.b=value`; the value is read as YAML. Under `train`, a number or a training's name picks one
entry (`train.0.seed=1`, `train.warm-start.max_steps=80`); a key without either is set in every
training (`train.grpo.learning_rate=2e-6`). `python -m flows.preflight --settings` lists them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from inspect import formatannotation
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from model.config import EvaluateConfig, Share, TrainConfig
from reports.config import ReportConfig
from storage.config import (
    AnnotationsConfig,
    Config,
    ConvertConfig,
    FetchConfig,
    Idle,
    WhenBusy,
    WorldConfig,
    with_texts,
)
from storage.data.avqa import AvqaSource
from storage.data.registry import AnySource
from storage.errors import PipelineError
from storage.layout import RESERVED, Layout
from storage.records.model import FromTraining, parse_name

PROFILES = Path(__file__).parent / "profiles"
StageName = Literal["fetch", "convert", "train", "evaluate", "report"]
STAGES: tuple[StageName, ...] = get_args(StageName)
MODULE = re.compile(r"[\w.]*\.(?=\w)")  # before a type's name
Tree = dict[str, Any] | list[Any] | str | float | None  # what YAML holds
# One key of the configuration and its value, as `--set` has it: `evaluate.batch_size=30`.
Override = Annotated[str, Field(pattern=r"^[\w.-]+=(.|\n)*$")]


class ExpectConfig(Config):
    """What the result must show for the run to succeed; a bound left out is not checked."""

    start_at_most: Share | None = None
    """Largest average accuracy (0..1) of the model that the last training started from."""
    last_at_least: Share | None = None
    """Smallest average accuracy (0..1) of the last training's last checkpoint."""


class ScheduleConfig(Config):
    """When `make serve` runs the whole pipeline by itself."""

    cron: Annotated[str, Field(pattern=r"^\S+( \S+){4}$")]
    """Minute, hour, day of the month, month, day of the week, e.g. `0 3 * * 6`."""
    timezone: str = "UTC"
    """E.g. `Europe/Berlin`."""


class PipelineConfig(Config):
    """A whole experiment."""

    experiment: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    """Name of the experiment's folder in the workspace."""
    world: WorldConfig | None = None
    """A small made world to fetch from and be tested on; None: the real one."""
    annotations: AnnotationsConfig = AnnotationsConfig()
    """AVQA's questions."""
    fetch: FetchConfig = FetchConfig()
    """How audio is fetched and cut."""
    data: tuple[AnySource, ...] = (AvqaSource(),)
    """What is trained on: AVQA (`{kind: avqa}`, by fetch and convert), any rows (`{kind: lines,
    path: FILE}`), a data set of the hub (`{kind: hub, dataset: NAME}`)."""
    convert: ConvertConfig = ConvertConfig()
    """How R1-AQA's JSON lines are written."""
    train: tuple[TrainConfig, ...] = (TrainConfig(),)
    """Trainings, in order; each has its own row in the leaderboard."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Benchmarks, models and scorers."""
    report: ReportConfig = ReportConfig()
    """What the tables and pages show."""
    expect: ExpectConfig = ExpectConfig()
    """Bounds on the result."""
    schedule: Annotated[ScheduleConfig | None, Idle] = None
    """When `make serve` runs the pipeline by itself; None: when somebody starts it."""
    notify: Annotated[str | None, Field(pattern=r"^(https?://|env:|file:)"), Idle] = None
    """Webhook that is told each run's end as `{"text": ...}`; its address is often a secret, named
    by its place: `env:VARIABLE` or `file:PATH`. None: nobody is told."""
    when_busy: Annotated[WhenBusy, Idle] = "wait"
    """What a stage does while another run is at the same unit of work: wait for it, or refuse."""

    @property
    def avqa(self) -> AnnotationsConfig | None:
        """AVQA's questions, where they are trained on."""
        has_avqa = any(isinstance(source, AvqaSource) for source in self.data)
        return self.annotations if has_avqa else None

    def layout(self, workspace: Path) -> Layout:
        """Where everything of this experiment lies."""
        return Layout(workspace.absolute(), self.experiment, self.fetch.clip_length_s)

    @model_validator(mode="after")
    def _check_data(self) -> "PipelineConfig":
        labels = [source.label for source in self.data]
        trained = [source for source in self.data if not source.validation]
        if len(set(labels)) < len(labels):
            msg = f"data: sources are named {', '.join(labels)}; give each a `name` of its own"
            raise ValueError(msg)
        if not trained:
            msg = "data: nothing is trained on; name a source, e.g. {kind: avqa}"
            raise ValueError(msg)
        if len({source.weight is None for source in trained}) > 1:
            msg = "data: give a `weight` to every source that is trained on, or to none"
            raise ValueError(msg)
        if sum(isinstance(source, AvqaSource) for source in self.data) > 1:
            msg = "data: AVQA stands there twice; `annotations` names one file"
            raise ValueError(msg)
        return self

    @field_validator("train", mode="before")
    @classmethod
    def _inherit(cls, trainings: Tree) -> Tree:
        """Give a training that continues another its settings where it states none."""
        known: dict[object, Mapping[str, Any]] = {}

        def whole(entry: Tree) -> Tree:
            if not isinstance(entry, dict):
                return entry
            parent = known.get(str(entry.get("continues")).rpartition("@")[0], {})
            made = known[str(entry.get("name"))] = _merged(parent, entry)
            return dict(made)

        return [whole(entry) for entry in trainings] if isinstance(trainings, list) else trainings

    @model_validator(mode="after")
    def _check_names(self) -> "PipelineConfig":
        if self.experiment in RESERVED:
            msg = (
                f"experiment {self.experiment} is the name of a folder that all experiments of a "
                f"workspace share; choose another than {', '.join(sorted(RESERVED))}"
            )
            raise ValueError(msg)
        earlier: dict[str, TrainConfig] = {}
        for training in self.train:
            if training.name in earlier:
                msg = f"two trainings are named {training.name}; each needs its own name"
                raise ValueError(msg)
            for name in training.needs:
                start = parse_name(name)
                if isinstance(start, FromTraining):
                    _check_start(training.name, start, earlier)
            if training.continues:
                training.check_continues(earlier[training.continues.rpartition("@")[0]])
            earlier[training.name] = training
        return self


def _check_start(name: str, start: FromTraining, earlier: Mapping[str, TrainConfig]) -> None:
    if start.name not in earlier:
        msg = (
            f"training {name} starts from training:{start.name}, which no earlier entry is named; "
            f"earlier: {', '.join(earlier) or 'none'}"
        )
        raise ValueError(msg)
    saved = earlier[start.name].saved_steps
    if start.step is not None and start.step not in saved:
        msg = f"training {name} starts from step {start.step} of {start.name}, which saves {saved}"
        raise ValueError(msg)


def _merged(parent: Mapping[str, Any], entry: Mapping[str, Tree]) -> dict[str, Any]:
    inner = {
        key: _merged(parent[key], value)
        for key, value in entry.items()
        if isinstance(value, dict) and isinstance(parent.get(key), dict)
    }
    return {**parent, **entry, **inner}


def load_config(profile: str, *, workspace: Path, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Read a profile, by its name or its path, and apply overrides `a.b=value`.

    Raises:
        PipelineError: For an unknown profile or key, or a value out of range; names the key.
    """
    path = next(filter(Path.is_file, (PROFILES / f"{profile}.yaml", Path(profile))), None)
    if path is None:
        known = ", ".join(sorted(path.stem for path in PROFILES.glob("*.yaml")))
        msg = f"unknown profile {profile}: expected one of {known}, or the path of a YAML file"
        raise PipelineError(msg)
    tree = _read_yaml(path.read_text(encoding="utf-8"), f"profile {path}")
    if not isinstance(tree, dict):
        msg = f"profile {path} holds {type(tree).__name__}, expected keys such as `experiment:`"
        raise PipelineError(msg)
    return _with_overrides(tree, overrides, workspace, origin=str(path))


def overridden(config: PipelineConfig, overrides: Sequence[str], workspace: Path) -> PipelineConfig:
    """A configuration with single keys changed, as by `--set`.

    Raises:
        PipelineError: For an unknown key, which names the nearest known one, or a bad value.
    """
    if not overrides:
        return config
    tree = config.model_dump(mode="json")
    return _with_overrides(tree, overrides, workspace, origin="overrides")


def _with_overrides(
    tree: dict[str, Any], overrides: Sequence[str], workspace: Path, *, origin: str
) -> PipelineConfig:
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            msg = f"--set {override}: expected KEY=VALUE, e.g. train.grpo.learning_rate=2e-6"
            raise PipelineError(msg)
        value = _read_yaml(text, f"--set {override}: {text!r}")
        _set(tree, key.split("."), value, override)
    world: dict[str, Any] = tree.get("world") or {}
    port = world.get("port", WorldConfig.model_fields["port"].default)

    def fill_in(_key: str, text: str) -> str:
        return text.replace("{workspace}", str(workspace)).replace("{world.port}", str(port))

    try:
        return PipelineConfig.model_validate(with_texts(tree, fill_in))
    except ValidationError as error:
        raise PipelineError(_describe(error, origin)) from error


def _describe(error: ValidationError, origin: str) -> str:
    """One line a wrong key: where it stands, what is wrong, what was found."""
    lines = [f"{origin} does not validate:"]
    for detail in error.errors():
        place = ".".join(str(part) for part in detail["loc"]) or "profile"
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden":
            wrong = ".".join(part for part in detail["loc"] if isinstance(part, str))
            close = get_close_matches(wrong, sorted(known_settings()), n=1, cutoff=0.4)
            nearest = f"; the nearest is {close[0]}" if close else ""
            message = f"there is no such key{nearest}"
        if detail["type"] not in {"missing", "value_error"}:
            message += f" (found {detail['input']!r})"
        lines.append(f"  {place}: {message}")
    return "\n".join(lines)


def _read_yaml(text: str, origin: str) -> Tree:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
            mark = error.problem_mark
            problem = f"{error.problem} (line {mark.line + 1}, column {mark.column + 1})"
        msg = f"{origin} is not YAML: {problem}"
        raise PipelineError(msg) from error


def _set(tree: Tree, keys: Sequence[str], value: Tree, override: str) -> None:
    if isinstance(tree, list):
        picked = _pick(tree, keys, override)
        for entry in picked or tree:
            _set(entry, keys[1:] if picked else keys, value, override)
    elif not isinstance(tree, dict) or not keys:
        msg = f"--set {override}: there is no such key"
        raise PipelineError(msg)
    elif len(keys) == 1:
        tree[keys[0]] = value
    else:
        if tree.get(keys[0]) is None:
            tree[keys[0]] = [{}] if keys[0] == "train" else {}
        _set(tree[keys[0]], keys[1:], value, override)


def _pick(entries: Sequence[Tree], keys: Sequence[str], override: str) -> list[Tree]:
    """The entry that a key begins with: by position, or by its `name`.

    A word that is a field as well (`grpo`) means the field where the rest of the key fits it.
    """
    key = keys[0]
    if key.isdecimal():
        if int(key) >= len(entries):
            msg = f"--set {override}: there are {len(entries)} entries, counted from 0"
            raise PipelineError(msg)
        return [entries[int(key)]]
    if ".".join(["train", *keys]) in known_settings():
        return []
    return [entry for entry in entries if isinstance(entry, dict) and entry.get("name") == key]


@cache
def known_settings(group: type[BaseModel] = PipelineConfig, prefix: str = "") -> dict[str, str]:
    """Every key of a profile, e.g. `train.learning_rate`, and what its field says of it.

    A list's entries are not numbered: each kind of them has its keys.
    """
    found: dict[str, str] = {}
    types = get_type_hints(group)
    source = f"{group.__module__.replace('.', '/')}.py"
    for name, field in group.model_fields.items():
        groups = _groups_in(field.annotation)
        default = "required" if field.is_required() else json.dumps(field.default, default=str)
        shown = "" if groups else f" = {default}"
        text = " ".join((field.description or "").split())
        text += " Decides nothing of the result." * (Idle in field.metadata)
        type_name = MODULE.sub("", formatannotation(types[name]))
        found[prefix + name] = f"{type_name}{shown}\n    {text} ({source})"
        for inner in groups:
            for key, told in known_settings(inner, f"{prefix}{name}.").items():
                before = found.setdefault(key, told)
                found[key] = before if told in before else f"{before}\n{key}: {told}"
    return found


def _groups_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _groups_in(part)]
