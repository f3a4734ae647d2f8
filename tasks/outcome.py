"""Expected errors as states.

A flow or task that meets one ends Failed with its message, without a traceback.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec

from prefect import State
from prefect.states import Completed, Failed

from storage.errors import PipelineError

P = ParamSpec("P")


def expected_errors_fail(function: Callable[P, Any]) -> Callable[P, Any]:
    """Let a flow or task end Failed on a PipelineError; `value_of` raises it for the caller."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401  whatever the function returns
        try:
            return function(*args, **kwargs)
        except PipelineError as error:
            return Failed(message=str(error), data=error)

    return guarded


def value_of(state: State[Any]) -> Any:  # noqa: ANN401  whatever the run returned
    """What a run returned; raises what it ended with otherwise."""
    return state.result()


def skipped(reason: str) -> State[None]:
    """The state of a stage that had nothing to do; Prefect's pages show its name."""
    return Completed(name="Skipped", message=reason)
