"""Orchestration: the order of the stages, their commands and profiles.

Prefect reads its settings when it is first imported, so what our commands want of it is set here,
before: nothing is sent to anybody, the database lies in the workspace, the terminal shows our lines
and not Prefect's. Whatever the user has set wins, a Prefect profile of theirs included.
"""

import argparse
import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_WORKSPACE = "workspace"
STOPPED = "stopped; the same command goes on where this one was"
COMMAND_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",  # flows/serving/own_server.py starts one
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # the least that Prefect allows
    "PREFECT_LOGGING_LEVEL": "CRITICAL",  # errors are told once, by the command
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",  # of each heartbeat, where its server is away
}


def own_option(name: str, words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of one option of a command line, None if it is not there, and the other words."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(name, dest="value", nargs="?")
    options, others = parser.parse_known_args(words)
    return options.value, others


def is_loopback(url: str) -> bool:
    """Whether an address is this host's own."""
    return urlsplit(url).hostname in {"127.0.0.1", "localhost", "::1"}


def _set_defaults_of_commands() -> None:
    named, _ = own_option("--workspace", sys.orig_argv)
    home = Path(named or DEFAULT_WORKSPACE).absolute() / "prefect"
    has_own_profile = Path("~/.prefect/profiles.toml").expanduser().exists()
    if not has_own_profile and "PREFECT_PROFILES_PATH" not in os.environ:
        os.environ.setdefault("PREFECT_HOME", str(home))
        # Prefect makes it, or the first file in it.
        warnings.filterwarnings("ignore", "Failed to create the Prefect home directory")
    if is_loopback(os.environ.get("PREFECT_API_URL", "")):
        with contextlib.suppress(OSError):  # a server that somebody else started
            os.environ.setdefault("PREFECT_API_AUTH_STRING", (home / "login").read_text().strip())
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
    _set_defaults_of_commands()
