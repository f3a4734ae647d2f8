"""What the commands of child processes share: `python -m model.run_X ...`."""

import sys
from collections.abc import Callable, Sequence

from storage.errors import PipelineError
from storage.host.supervisor import die_with_parent


def run_command(arguments: Sequence[str], names: str, work: Callable[..., object]) -> int:
    """Do a command's work; an expected failure is one line and its exit code.

    Args:
        arguments: As they were given.
        names: What is to be given, e.g. `RUN.json`.
        work: Called with the arguments.
    """
    if len(arguments) != len(names.split()):
        spec = sys.modules["__main__"].__spec__
        command = spec.name if spec else "model"
        print(f"usage: python -m {command} {names}", file=sys.stderr)  # noqa: T201  a command
        return 2
    die_with_parent()
    try:
        work(*arguments)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)  # noqa: T201  a command
        return error.exit_code
    return 0
