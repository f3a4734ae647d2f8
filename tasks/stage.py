"""A stage's units of work: what decides each, whether it is done, how it is run and recorded.

A stage is one unit (convert) or several (a training, a model on a benchmark). A unit is skipped
when its manifest says that the same work was done and its outputs stand. Expected errors are
states: a flow or task that meets one ends Failed with its message, without a traceback.
"""

import functools
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec

from prefect import State
from prefect.states import Completed, Failed

from storage import manifest
from storage.errors import PipelineError
from storage.layout import Layout
from tasks.running.console import say

P = ParamSpec("P")


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
        """Tell whether it is done, or nothing is to be done about it, and why or why not.

        Args:
            force: It is to be done although it is.
        """
        path = self.layout.manifest(self.name)
        verdict = manifest.check(path, self.name, self.parts, may_go=self.may_go)
        if self.impossible and (force or not verdict.is_done):
            return manifest.Verdict(is_done=True, reason=self.impossible)
        if force and verdict.is_done:
            return manifest.Verdict(is_done=False, reason="forced")
        return verdict

    def stands(self) -> bool:
        """Whether it was done with what decides it now."""
        path = self.layout.manifest(self.name)
        return manifest.check(path, self.name, self.parts, may_go=self.may_go).is_done

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


def stage_state(*, has_run: bool) -> State[None] | None:
    """How a stage's flow ends: `Skipped`, as Prefect's pages show it, where nothing was due."""
    return None if has_run else Completed(name="Skipped", message="done before, unchanged")


class _WithoutTraceback(logging.Filter):
    """Takes the traceback off log records of expected errors; Prefect adds one to each."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], PipelineError):
            record.exc_info = record.exc_text = None
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(_WithoutTraceback())


def expected_errors_fail(function: Callable[P, Any]) -> Callable[P, Any]:
    """Let a flow or task end Failed on a PipelineError; `run` raises it for the caller."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401  whatever the function returns
        try:
            return function(*args, **kwargs)
        except PipelineError as error:
            return Failed(message=str(error), data=error)

    return guarded


def run(flow_or_task: Callable[..., Any], *args: object, **parameters: object) -> Any:  # noqa: ANN401  whatever it returns
    """Run a flow or task here and now; returns its value, raises what it ended with otherwise."""
    return flow_or_task(*args, **parameters, return_state=True).result()


def is_transient(_task: object, _run: object, state: State[Any]) -> bool:
    """Whether a failed task is worth another try: Prefect's `retry_condition_fn`."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, PipelineError) and error.is_transient
