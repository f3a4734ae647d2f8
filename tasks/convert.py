"""Convert: rows of every source of `data` become R1-AQA's JSON lines.

Every row is kept or accounted for.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from storage.audio import check_clips
from storage.benchmarks.published import find_description
from storage.config import AnnotationsConfig, BenchmarkConfig, ConvertConfig, FetchConfig
from storage.data import avqa, mixture
from storage.data.avqa import AvqaSource
from storage.data.source import DataSource, Rows, without_unreadable
from storage.errors import PipelineError
from storage.fetch.ledger import ClipRow, Ledger
from storage.jsonl import write_jsonl
from storage.layout import Layout
from storage.records.clip import Clip, ClipState
from storage.records.example import DataAccount, Dropped, Example, SourceAccount
from tasks.inputs import AnnotationFiles, read_annotations
from tasks.running.console import say
from tasks.stage import Unit, task

CLIPS_FOLDER = "clips' folder"  # what a workspace's move alone changes


class ConvertSettings(NamedTuple):
    """What of a profile decides its examples."""

    data: tuple[DataSource, ...]
    annotations: AnnotationsConfig | None
    """None: no source is AVQA."""
    convert: ConvertConfig
    fetch: FetchConfig
    benchmarks: tuple[BenchmarkConfig, ...]
    """What is evaluated: training on what one of them holds is said."""


class Taken(NamedTuple):
    """What came of one source."""

    source: DataSource
    train: list[Example]
    held_out: list[Example]
    named: list[Example]
    """Of a validation file of its own."""
    dropped: list[Dropped]
    content: dict[str, str]
    """sha256 of each clip, by `audio_path`."""


def convert_unit(settings: ConvertSettings, layout: Layout) -> Unit:
    """What decides the examples."""
    read = read_annotations(settings.annotations, layout, settings.fetch.limit)
    validation_size = settings.annotations and settings.annotations.validation_size
    others = [source for source in settings.data if not isinstance(source, AvqaSource)]
    return Unit(
        name="convert",
        layout=layout,
        parts={
            "annotations": [read.train.sha256, read.validation and read.validation.sha256],
            "settings": [
                settings.convert.model_dump(mode="json"),
                validation_size,
                settings.fetch.min_usable_share,
                settings.fetch.limit,
            ],
            # Those that make examples, with what they hold: one may come, go, or be fetched anew.
            "clips": sorted(
                [row.clip_id, row.sha256 or ""]
                for row in _ledger_rows(read.clips, layout)
                if row.state == "done" and (layout.clips / row.clip.file_name).exists()
            ),
            CLIPS_FOLDER: _audio_dir(settings.convert, layout),
            "data": [source.model_dump(mode="json") for source in settings.data],
            "data's content": [source.decides(layout.datasets) for source in others],
        },
        outputs=(
            layout.train_jsonl,
            layout.validation_jsonl,
            layout.dropped_jsonl,
            layout.data_account,
        ),
    )


@task("convert")
def convert(settings: ConvertSettings, layout: Layout) -> None:
    """Write train.jsonl, validation.jsonl, dropped.jsonl and the account of the rows."""
    avqa_files = read_annotations(settings.annotations, layout, settings.fetch.limit)
    taken = [_take(source, settings, avqa_files, layout) for source in settings.data]
    train = mixture.weigh([(part.source, part.train) for part in taken])
    if not train:
        msg = "data: nothing is left to train on; lower `held_out`"
        raise PipelineError(msg)
    held_out = [example for part in taken for example in (*part.held_out, *part.named)]
    content = {path: sha256 for part in taken for path, sha256 in part.content.items()}
    holds = {entry.name: find_description(entry).holds for entry in settings.benchmarks}
    account = DataAccount(
        sources=tuple(
            SourceAccount(
                name=part.source.label,
                num_kept=len(part.train),
                num_held_out=len(part.held_out),
                dropped=dict(Counter(row.reason for row in part.dropped).most_common()),
                weight=part.source.weight,
            )
            for part in taken
        ),
        warnings=(*mixture.repeated(train, held_out, content), *mixture.held_by(train, holds)),
    )
    write_jsonl(layout.train_jsonl, (example.as_record() for example in train))
    write_jsonl(layout.validation_jsonl, (example.as_record() for example in held_out))
    dropped = [row for part in taken for row in part.dropped]
    write_jsonl(layout.dropped_jsonl, (row.as_record() for row in dropped))
    account.write(layout.data_account)
    _tell(account, layout)


def _take(
    source: DataSource, settings: ConvertSettings, files: AnnotationFiles, layout: Layout
) -> Taken:
    """A source's rows, each clip decoded once; AVQA's were decoded when they were fetched."""
    if isinstance(source, AvqaSource):
        return _take_avqa(source, settings, files, layout)
    rows = source.read(layout.datasets)
    paths = {example.audio_path: Path(example.audio_path) for example in rows.examples}
    facts = check_clips(paths, layout.datasets / f"{source.label}.clips.json")
    rows = without_unreadable(rows, source.label, facts)
    if not rows.examples:
        first = f"the first: {rows.dropped[0].detail}" if rows.dropped else "it has no rows"
        msg = f"data: nothing of {source.label} can be used ({len(rows.dropped)} rows); {first}"
        raise PipelineError(msg)
    content = {example.audio_path: facts[example.audio_path]["sha256"] for example in rows.examples}
    return _held_out(source, rows, content)


def _take_avqa(
    source: AvqaSource, settings: ConvertSettings, files: AnnotationFiles, layout: Layout
) -> Taken:
    audio_dir = _audio_dir(settings.convert, layout)
    ledger = _ledger_rows(files.clips, layout)
    examples_of = partial(
        avqa.convert,
        states={row.clip_id: ClipState(row.state, row.reason_code, row.message) for row in ledger},
        audio_dir=audio_dir,
        has_wav=lambda clip: (layout.clips / clip.file_name).exists(),
    )
    train = examples_of(files.train)
    avqa.check_usable_share(train, settings.fetch.min_usable_share)
    names = {row.clip.file_name: row.sha256 for row in ledger}
    content = {f"{audio_dir}/{name}": sha256 or name for name, sha256 in names.items()}
    taken = _held_out(source, train, content)
    named = examples_of(files.validation).examples if files.validation else []
    return taken._replace(named=named)


def _held_out(source: DataSource, rows: Rows, content: dict[str, str]) -> Taken:
    train, held_out = mixture.hold_out(source, rows.examples, content)
    return Taken(source, train, held_out, [], rows.dropped, content)


def _tell(account: DataAccount, layout: Layout) -> None:
    sources = account.sources
    for source in sources if len(sources) > 1 else ():
        say(f"convert: {source.name}: {source.num_kept} of {source.num_read} rows kept")
    for warning in account.warnings:
        say(f"convert: {warning}")
    num_kept = sum(source.num_kept for source in sources)
    num_dropped = sum(sum(source.dropped.values()) for source in sources)
    summary = f"{sum(source.num_read for source in sources)} rows read = {num_kept} kept"
    summary += f" + {num_dropped} dropped"
    if num_held_out := sum(source.num_held_out for source in sources):
        summary += f" + {num_held_out} held out"
    say(f"convert: {summary} -> {layout.train_jsonl}")


def _audio_dir(config: ConvertConfig, layout: Layout) -> str:
    """The folder of the clips as the lines name it."""
    return config.audio_dir or str(layout.clips)


def _ledger_rows(clips: Sequence[Clip], layout: Layout) -> list[ClipRow]:
    if not clips or not layout.ledger.exists():
        return []
    with Ledger(layout.ledger, clip_length_s=layout.clip_length_s) as ledger:
        return ledger.rows(clips)
