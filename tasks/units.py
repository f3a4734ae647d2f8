"""Units of work: what decides their output, whether they are done, and their plan.

A stage is one unit (convert) or several (a training, a model on a benchmark). A unit is skipped
when its manifest says that the same work was done and its outputs stand.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from storage import manifest
from storage.layout import Layout


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece of work with its commit record."""

    name: str
    """Stage, or stage/part, e.g. `train/grpo`."""
    layout: Layout
    """Where its manifest lies."""
    parts: Mapping[str, object]
    """Everything that decides the output, by the name shown when it changes."""
    outputs: tuple[Path, ...]
    """Files and folders that it makes."""

    def verdict(self) -> manifest.Verdict:
        """Tell whether it is done, and why or why not."""
        return manifest.check(self.layout.manifest(self.name), self.name, self.parts)

    def commit(self) -> manifest.Manifest:
        """Record it as done."""
        return manifest.commit(self.layout.manifest(self.name), self.name, self.parts, self.outputs)
