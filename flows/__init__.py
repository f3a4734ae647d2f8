"""Orchestration: the order of the stages, their commands and profiles.

Prefect reads its settings when it is first imported, so what our commands want of it is set here,
before: nothing is sent to anybody, the database lies in the workspace, the terminal shows our lines
and not Prefect's. Whatever the user has set wins, a Prefect profile of theirs included.
"""

import contextlib
import os
import signal
import sys
import warnings
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_WORKSPACE = "workspace"
STOPPED = "stopped; the same command goes on where this one was"
WITHOUT_PREFECT = {"flows.score", "flows.versions"}  # the commands that need no workspace
COMMAND_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",  # flows/serving/own_server.py starts one
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # the least that Prefect allows
    "PREFECT_LOGGING_LEVEL": "CRITICAL",  # errors are told once, by the command
}


def _named_workspace(arguments: list[str]) -> Path:
    name = DEFAULT_WORKSPACE
    for position, argument in enumerate(arguments):
        if argument == "--workspace" and position + 1 < len(arguments):
            name = arguments[position + 1]
        elif argument.startswith("--workspace="):
            name = argument.partition("=")[2]
    return Path(name).absolute()


def _set_defaults_of_commands() -> None:
    has_own_profile = Path("~/.prefect/profiles.toml").expanduser().exists()
    if not has_own_profile and "PREFECT_PROFILES_PATH" not in os.environ:
        home = _named_workspace(sys.orig_argv) / "prefect"
        os.environ.setdefault("PREFECT_HOME", str(home))
        if not {"-h", "--help"} & set(sys.orig_argv):
            with contextlib.suppress(OSError):  # the command itself says what cannot be written
                home.mkdir(parents=True, exist_ok=True)
        warnings.filterwarnings("ignore", "Failed to create the Prefect home directory")
    login = _named_workspace(sys.orig_argv) / "prefect" / "login"
    if urlsplit(os.environ.get("PREFECT_API_URL", "")).hostname in {"127.0.0.1", "localhost"}:
        with contextlib.suppress(OSError):  # a server that somebody else started
            os.environ.setdefault("PREFECT_API_AUTH_STRING", login.read_text().strip())
    for name, value in COMMAND_DEFAULTS.items():
        os.environ.setdefault(name, value)
    # A proxy of this site does not lead to this host's own servers: every run waited for ever.
    beside = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = f"{beside},127.0.0.1,localhost".lstrip(",")


def _stop_while_importing(number: int, _frame: object) -> None:
    os.write(2, f"{STOPPED}\n".encode())
    os._exit(128 + number)


# What Python has there while it imports the package of a command.
if sys.argv[:1] == ["-m"]:
    for _number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(_number) is not signal.SIG_IGN:
            signal.signal(_number, _stop_while_importing)  # until flows/command.py sets its own
    if not WITHOUT_PREFECT & set(sys.orig_argv):
        _set_defaults_of_commands()
