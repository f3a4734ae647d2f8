"""What the commands share: their options, and one clear line for an expected error."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from flows import DEFAULT_WORKSPACE, STOPPED
from flows.pipeline_config import PipelineConfig, load_config
from storage.errors import PipelineError
from storage.layout import Layout
from storage.text import printable
from tasks.stage import run

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Command(argparse.ArgumentParser):
    """The options that every stage's command has."""

    def __init__(self, name: str, description: str | None) -> None:
        """Name the command as it is typed."""
        summary = (description or "").partition("\n")[0]
        super().__init__(prog=f"python -m flows.{name}", description=summary)
        self.add_argument(
            "--profile", default="demo", help="name from flows/profiles, or a YAML file"
        )
        self.add_argument(
            "--workspace", type=Path, default=Path(DEFAULT_WORKSPACE), help="folder of all data"
        )
        self.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="change one key"
        )
        self.add_argument("--force", action="store_true", help="run although the outputs stand")


def read_config(arguments: argparse.Namespace) -> tuple[PipelineConfig, Layout]:
    """The configuration and the paths that a command's options name."""
    workspace: Path = arguments.workspace.absolute()
    config = load_config(arguments.profile, workspace=workspace, overrides=arguments.set)
    return config, config.layout(workspace)


def resume_command(config: PipelineConfig, workspace: Path) -> str:
    """What goes on with a fetch that was stopped: the command as it was typed.

    A class that was put back to be tried again (`--retry`) is not put back once more. Under Prefect
    nothing was typed; then it is a command that does the same.
    """
    spec = sys.modules["__main__"].__spec__
    if spec is None or spec.name not in {"flows.fetch", "flows.full_pipeline"}:
        profile = shlex.quote(config.experiment)
        return (
            f"python -m flows.fetch --profile {profile} --workspace {shlex.quote(str(workspace))}"
        )
    retry = argparse.ArgumentParser(add_help=False)
    retry.add_argument("--retry")
    return shlex.join(["python", "-m", spec.name, *retry.parse_known_args(sys.argv[1:])[1]])


def run_flow(
    flow: Callable[..., Any], config: PipelineConfig, layout: Layout, **parameters: object
) -> None:
    """Run a flow as this command's own, on a Prefect server of its own where none is set.

    Raises:
        PipelineError: What the run ended with.
    """
    from flows.serving.own_server import own_server  # noqa: PLC0415  who runs nothing needs no Prefect

    with own_server(layout.workspace):
        run(flow, config, layout.workspace, **parameters)


def run_command(main: Callable[[Sequence[str] | None], int | None]) -> NoReturn:
    """Run a command's main function; an expected error is printed as its message alone.

    A signal that asks to stop ends it with 128 + its number, as shells have it.
    """
    received = [signal.SIGINT]

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        received.append(signal.Signals(number))
        raise KeyboardInterrupt

    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, stop)
    try:
        exit_code = main(None) or 0
        sys.stdout.flush()
    except PipelineError as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        exit_code = error.exit_code
    except BrokenPipeError:  # `| head` has read enough; what Python flushes at its end goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        exit_code = 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr, flush=True)
        os._exit(128 + received[-1])  # Python would wait for threads, in a download say
    sys.exit(exit_code)
