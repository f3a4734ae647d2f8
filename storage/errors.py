"""The one exception that a user is meant to read.

Raised where the remedy lies with the person who runs the pipeline: a wrong setting, a missing file,
a full disk. The commands in `flows` print its message alone, without a traceback, and exit with its
code.
"""

import re

SYSTEM_ERROR = re.compile(r"\[Errno -?\d+\] ([^)\]\"']+)")
MAX_CAUSE = 120
BLOCKED_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong here, try again later


class PipelineError(Exception):
    """An expected failure: names the thing, what was expected and found, and what to do.

    Args:
        message: What the user reads.
        exit_code: Of the command.
        is_transient: Whether the same again may go well, so that a task is tried again.
    """

    def __init__(self, message: str, *, exit_code: int = 1, is_transient: bool = False) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.is_transient = is_transient


def network_cause(error: Exception) -> str:
    """What the system said of a failed connection, without 400 characters of how it was asked."""
    causes = SYSTEM_ERROR.findall(str(error))
    return causes[-1].strip() if causes else str(error).partition("\n")[0][:MAX_CAUSE]
