"""A record that is a JSON file of its own: one format number, one reader, one writer.

What an older version of this program wrote is refused in one line and left as it is.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast

from pydantic import ValidationError

from storage.config import Config
from storage.errors import PipelineError
from storage.jsonl import read_json, write_json

FORMAT = 2  # of every record; 1 was written before records had a type


class Document(Config):
    """A frozen record with a file of its own."""

    what: ClassVar[str]
    """What it is, for messages, e.g. `a training's record`."""

    format: Literal[2] = FORMAT
    """Version of the file's shape."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read one; refused where it is missing, of another format, or damaged."""
        found: Any = read_json(path)
        if not isinstance(found, dict):
            msg = f"{path} is {type(found).__name__}, expected {cls.what}: a JSON object"
            raise PipelineError(msg)
        version = cast("dict[str, Any]", found).get("format", 1)
        if version != FORMAT:
            raise PipelineError(
                f"{path} is of format {version}, this version reads {FORMAT}; nothing was touched. "
                "Use another --workspace, or the version of this program that wrote it"
            )
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise PipelineError(f"{path} is not {cls.what}: {place}: {first['msg']}") from error

    def as_json(self) -> dict[str, Any]:
        """The file's content."""
        return self.model_dump(mode="json")

    def write(self, path: Path) -> None:
        """Write it in one step."""
        write_json(path, self.as_json())
