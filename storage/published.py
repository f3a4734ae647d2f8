"""The published benchmarks known by name: one small file each in `storage/benchmarks`.

Adding a benchmark is adding a file there; its keys are the fields of `PublishedBenchmark`. A name
stands for one exact file of questions, by its sha256: "MMAU test-mini" alone names several, and the
two that count differ in 36% of their questions.
"""

import hashlib
from pathlib import Path

import yaml
from pydantic import ValidationError

from storage.config import Config
from storage.errors import PipelineError
from storage.mmau import FieldNames, Question, list_ids

FOLDER = Path(__file__).with_name("benchmarks")


class HubAudio(Config):
    """A data set on the hub whose rows hold the clips."""

    dataset: str
    """Name on the hub, e.g. `gamma-lab-umd/MMAU-test-mini`."""
    revision: str | None = None
    """Commit of the data set; None: its newest."""
    split: str = "test"
    """Split to read."""


class PublishedBenchmark(Config):
    """One version of a benchmark: where its questions and clips are, and how to know them."""

    name: str
    """As in the profile, and the name of its file."""
    title: str
    """As tables show it."""
    questions: str
    """Address of the questions' file, at a pinned commit."""
    sha256: str | None = None
    """Of that file; None where it is not known: then only the number and the ids are checked."""
    num_questions: int
    """Questions in it."""
    has_answers: bool = True
    """False where the answers are withheld: predictions are then written as a submission file."""
    tasks: tuple[str, ...] = ()
    """The tasks of its questions; empty: any."""
    fields: FieldNames = FieldNames()
    """The keys of its rows."""
    audio: tuple[HubAudio, ...] = ()
    """Data sets that hold its clips, tried in this order."""
    audio_archive: str | None = None
    """Where its clips are otherwise, to be unpacked by hand and given as a folder."""
    submit: str | None = None
    """Address of the service that scores submissions."""
    note: str = ""
    """What one should know about it."""

    def check(self, content: bytes, questions: list[Question], source: str) -> None:
        """Refuse a file that is not the one that the name stands for.

        Raises:
            PipelineError: Says what differs and what to do.
        """
        found = hashlib.sha256(content).hexdigest()
        if self.sha256 is not None and found != self.sha256:
            msg = (
                f"{source} is not {self.name}: sha256 {found}, expected {self.sha256}. "
                f"Take the file at {self.questions}, or give yours another name in the profile"
            )
            raise PipelineError(msg)
        if len(questions) != self.num_questions:
            msg = (
                f"{source} is not {self.name}: {len(questions)} questions, "
                f"expected {self.num_questions}. Take the file at {self.questions}"
            )
            raise PipelineError(msg)
        strange = [q.id for q in questions if self.tasks and q.task not in self.tasks]
        if strange:
            msg = f"{source}: task is none of {', '.join(self.tasks)}: {list_ids(strange)}"
            raise PipelineError(msg)


def list_published() -> list[str]:
    """Names of all published benchmarks."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_published(name: str) -> PublishedBenchmark | None:
    """The published benchmark of that name; None for a name of one's own.

    Raises:
        PipelineError: If its file is malformed; names the key.
    """
    path = FOLDER / f"{name}.yaml"
    if name not in list_published():
        return None
    try:
        found = PublishedBenchmark.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError) as error:
        msg = f"{path}: {error}"
        raise PipelineError(msg) from error
    if found.name != name:
        msg = f"{path} is named {found.name!r} inside: expected {name!r}"
        raise PipelineError(msg)
    return found
