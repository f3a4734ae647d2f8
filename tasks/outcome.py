"""Expected errors as states.

A flow or task that meets one ends Failed with its message, without a traceback.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any, ParamSpec

from prefect import State
from prefect.states import Completed, Failed

from storage.errors import PipelineError

P = ParamSpec("P")


class _WithoutTraceback(logging.Filter):
    """Takes the traceback off log records of expected errors; Prefect adds one to each."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], PipelineError):
            record.exc_info = record.exc_text = None
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(_WithoutTraceback())


def expected_errors_fail(function: Callable[P, Any]) -> Callable[P, Any]:
    """Let a flow or task end Failed on a PipelineError; `value_of` raises it for the caller."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401  whatever the function returns
        try:
            return function(*args, **kwargs)
        except PipelineError as error:
            return Failed(message=str(error), data=error)

    return guarded


def is_transient(_task: object, _run: object, state: State[Any]) -> bool:
    """Whether a failed task is worth another try: Prefect's `retry_condition_fn`."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, PipelineError) and error.is_transient


def value_of(state: State[Any]) -> Any:  # noqa: ANN401  whatever the run returned
    """What a run returned; raises what it ended with otherwise."""
    return state.result()


def skipped(reason: str) -> State[None]:
    """The state of a stage that had nothing to do; Prefect's pages show its name."""
    return Completed(name="Skipped", message=reason)
