"""What the commands share: their options, and one clear line for an expected error."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from flows import DEFAULT_WORKSPACE
from flows.pipeline_config import PipelineConfig, load_config
from storage.errors import PipelineError
from storage.layout import Layout

INTERRUPTED_EXIT_CODE = 130  # 128 + SIGINT, as shells have it


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
    return config, Layout(workspace, config.experiment)


def run_command(main: Callable[[Sequence[str] | None], int | None]) -> NoReturn:
    """Run a command's main function; an expected error is printed as its message alone."""
    try:
        exit_code = main(None) or 0
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        exit_code = error.exit_code
    except KeyboardInterrupt:
        print("stopped; the same command goes on where this one was", file=sys.stderr)
        exit_code = INTERRUPTED_EXIT_CODE
    sys.exit(exit_code)
