"""A stage's units of work: what decides each, whether it is done, how it is run and recorded.

A stage is one unit (convert) or several (a training, a model on a benchmark). A unit is skipped
when its manifest says that the same work was done and its outputs stand. Nothing here imports
Prefect; what it makes of a flow and a task is tasks/running/prefect_form.py.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage import manifest
from storage.layout import Layout
from tasks.running.console import say


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
    may_go: Collection[Path] = ()
    """Those of the outputs that may be deleted afterwards: no reason to make them again."""
    impossible: str = ""
    """Why it cannot be done if it is not, e.g. that a checkpoint is gone; empty: it can."""

    def verdict(self, *, force: bool = False) -> manifest.Verdict:
        """Whether it is done, or nothing can be done about it, and why or why not."""
        path = self.layout.manifest(self.name)
        verdict = manifest.check(path, self.name, self.parts, may_go=self.may_go)
        if self.impossible and (force or not verdict.is_done):
            return manifest.Verdict(is_done=True, reason=self.impossible)
        if force and verdict.is_done:
            return manifest.Verdict(is_done=False, reason="forced")
        return verdict

    def stands(self) -> bool:
        """Whether it was done with what decides it now."""
        verdict = self.verdict()
        return verdict.is_done and verdict.reason != self.impossible

    def commit(self) -> None:
        """Record it as done."""
        outputs = [path for path in self.outputs if path not in self.may_go or path.exists()]
        manifest.commit(self.layout.manifest(self.name), self.name, self.parts, outputs)


def run_unit(unit: Unit, work: Callable[[], object], *, force: bool) -> bool:
    """Do a unit's work and record it, unless it is done; tells whether it was done now."""
    verdict = unit.verdict(force=force)
    if verdict.is_done:
        say(f"{unit.name}: skipped ({verdict.reason})")
        return False
    work()
    unit.commit()
    return True


@dataclass(frozen=True, slots=True)
class Task:
    """A function that Prefect runs as a task."""

    function: Callable[..., Any]
    run_name: str
    """Of a run; `{parameter}` is replaced."""
    goes_on: bool
    """Whether a transient error is tried again, twice: where the last try was, it goes on."""


def task(run_name: str, *, goes_on: bool = False) -> Callable[[Callable[..., Any]], Task]:
    """Make a function a task; see `Task`."""
    return lambda function: Task(function, run_name, goes_on)


def run(work: Task | Callable[..., Any], *args: object, **parameters: object) -> None:
    """Run a flow or task here and now; raises what it ended with if it was not completed."""
    from tasks.running.prefect_form import as_flow, as_task  # noqa: PLC0415  who plans runs nothing

    made = as_task(work) if isinstance(work, Task) else as_flow(work)
    state = made(*args, **parameters, return_state=True)
    # Of a completed one nothing is asked: a busy server's late answer may hold the state alone.
    if not state.is_completed():
        state.result()
