"""What Prefect makes of our flows and tasks: the one place where a plain function becomes either.

They are made when they are run: who only asks what would run, or for help, does not wait a second
for Prefect. Expected errors are states: a flow or task that meets one ends Failed with its message,
without a traceback.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any, ParamSpec

import prefect
from prefect import Flow, State
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed

from storage.errors import PipelineError
from tasks.running.alive import alive, await_server
from tasks.stage import Task

P = ParamSpec("P")


def _without_traceback(record: logging.LogRecord) -> bool:
    """Take the traceback off log records of expected errors; Prefect adds one to each."""
    if record.exc_info and isinstance(record.exc_info[1], PipelineError):
        record.exc_info = record.exc_text = None
    return True


for _name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(_without_traceback)


def with_states(function: Callable[P, Any]) -> Callable[P, Any]:
    """Let a flow or task end Failed on a PipelineError, which `run` raises, Skipped on False."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401  whatever the function returns
        try:
            outcome = function(*args, **kwargs)
        except PipelineError as error:
            outcome = Failed(message=str(error), data=error)
        await_server()  # Prefect tells it how this ended, and raises where none answers
        if outcome is False:  # as Prefect's pages show it
            return Completed(name="Skipped", message="done before, unchanged")
        return outcome

    return guarded


@functools.cache
def as_flow(function: Callable[..., Any]) -> Flow[..., Any]:
    """Prefect's form of a function `NAME_flow(config, workspace, ...)`."""
    name = function.__name__.removesuffix("_flow").replace("_", "-")
    form = prefect.flow(name=name, flow_run_name=f"{name}-{{config.experiment}}")
    return form(alive(with_states(function)))


@functools.cache
def as_task(task: Task) -> prefect.Task[..., Any]:
    """Prefect's form of a task."""
    return prefect.task(
        task_run_name=task.run_name,
        cache_policy=NO_CACHE,
        retries=2 if task.goes_on else 0,
        retry_delay_seconds=[10, 60],
        retry_condition_fn=is_transient,
    )(with_states(task.function))


def is_transient(_task: object, _run: object, state: State[Any]) -> bool:
    """Whether a failed task is worth another try: Prefect's `retry_condition_fn`."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, PipelineError) and error.is_transient
