"""Convert: annotations and the account of clips become R1-AQA's JSON lines.

Every row is kept or accounted for.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from storage.config import AnnotationsConfig, ConvertConfig, FetchConfig
from storage.data import avqa
from storage.fetch.ledger import Ledger
from storage.jsonl import write_jsonl
from storage.layout import Layout
from tasks.inputs import read_annotations
from tasks.running.console import say
from tasks.stage import Unit, expected_errors_fail


@dataclass(frozen=True, slots=True)
class ConvertCounts:
    """The row account."""

    num_read: int
    num_kept: int
    num_validation: int
    by_reason: dict[str, int]

    @property
    def summary(self) -> str:
        """One line for a person."""
        num_dropped = self.num_read - self.num_kept
        return f"{self.num_read} rows read = {self.num_kept} kept + {num_dropped} dropped"


def convert_unit(
    annotations: AnnotationsConfig, config: ConvertConfig, fetch: FetchConfig, layout: Layout
) -> Unit:
    """What decides the examples."""
    read = read_annotations(annotations, layout, fetch.limit)
    return Unit(
        name="convert",
        layout=layout,
        parts={
            "annotations": [read.train.sha256, read.validation and read.validation.sha256],
            "settings": [
                config.model_dump(mode="json"),
                annotations.validation_size,
                fetch.min_usable_share,
                fetch.limit,
            ],
            "clips": sorted(_usable(read.clips, layout)),
            "clips' folder": _audio_dir(config, layout),
        },
        outputs=(layout.train_jsonl, layout.validation_jsonl, layout.dropped_jsonl),
    )


@task(task_run_name="convert", cache_policy=NO_CACHE)
@expected_errors_fail
def convert(
    annotations: AnnotationsConfig, config: ConvertConfig, fetch: FetchConfig, layout: Layout
) -> None:
    """Write train.jsonl, validation.jsonl and dropped.jsonl."""
    read = read_annotations(annotations, layout, fetch.limit)
    audio_dir = _audio_dir(config, layout)
    with Ledger(layout.ledger, clip_length_s=layout.clip_length_s) as ledger:
        states = ledger.states(read.clips)

    def has_wav(clip: avqa.Clip) -> bool:
        return (layout.clips / clip.file_name).exists()

    train = avqa.convert(read.train, states, audio_dir=audio_dir, has_wav=has_wav)
    avqa.check_usable_share(train, fetch.min_usable_share)
    write_jsonl(layout.train_jsonl, train.examples)
    write_jsonl(layout.dropped_jsonl, (row.as_record() for row in train.dropped))
    validation = (
        avqa.convert(read.validation, states, audio_dir=audio_dir, has_wav=has_wav).examples
        if read.validation
        else ()
    )
    write_jsonl(layout.validation_jsonl, validation)
    counts = ConvertCounts(train.num_read, len(train.examples), len(validation), train.reasons)
    create_table_artifact(
        [{"rows": counts.num_kept, "what": "kept"}]
        + [
            {"rows": count, "what": f"dropped: {reason}"} for reason, count in train.reasons.items()
        ],
        key="convert-rows",
        description=f"{counts.summary}.",
    )
    say(f"convert: {counts.summary} -> {layout.train_jsonl}")


def _audio_dir(config: ConvertConfig, layout: Layout) -> str:
    """The folder of the clips as the lines name it."""
    return config.audio_dir or str(layout.clips)


def _usable(clips: Iterable[avqa.Clip], layout: Layout) -> list[list[str]]:
    """The clips that make examples, with what they hold: what changes when a clip comes or goes."""
    if not layout.ledger.exists():
        return []
    wanted = list(clips)
    with Ledger(layout.ledger, clip_length_s=layout.clip_length_s) as ledger:
        rows = ledger.rows(wanted)
    return [
        [row.clip_id, row.sha256 or ""]
        for row in rows
        if row.state == "done" and (layout.clips / row.clip.file_name).exists()
    ]
