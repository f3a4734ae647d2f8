"""What the commands share: their options, and one clear line for an expected error."""

import functools
import os
import shlex
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from inspect import Signature, getdoc, signature
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from flows import DEFAULT_WORKSPACE, STOPPED, own_option
from flows.pipeline_config import Override, PipelineConfig, load_config, overridden
from storage.errors import PipelineError
from storage.layout import Layout
from storage.text import printable
from tasks.stage import run

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PARAMETERS = """

Args:
    config: The whole experiment.
    workspace: Folder of all data.
    overrides: Keys to change, as `--set` has them: `["evaluate.batch_size=30"]`.
    force: Do the work although its outputs stand.
"""


class Command(ArgumentParser):
    """The options that every stage's command has."""

    def __init__(self, name: str, description: str | None) -> None:
        """Name the command as it is typed."""
        summary = (description or "").partition("\n")[0]
        super().__init__(prog=f"python -m flows.{name}", description=summary)
        add, folder = self.add_argument, Path(DEFAULT_WORKSPACE)
        add("--profile", default="demo", help="name from flows/profiles, or a YAML file")
        add("--workspace", type=Path, default=folder, help="folder of all data")
        add("--set", action="append", default=[], metavar="KEY=VALUE", help="change one key")
        add("--force", action="store_true", help="run although the outputs stand")

    def read(self, arguments: Sequence[str] | None) -> tuple[Namespace, PipelineConfig, Layout]:
        """The options, and the configuration and the paths that they name."""
        options = self.parse_args(arguments)
        workspace: Path = options.workspace.absolute()
        config = load_config(options.profile, workspace=workspace, overrides=options.set)
        return options, config, config.layout(workspace)


def stage_flow(**own: str) -> Callable[[Callable[..., bool | None]], Callable[..., bool | None]]:
    """Give a stage's work on a `config` and a `layout` the parameters that all flows have.

    `own` is what Prefect's form says of each further parameter of the work.
    """
    told = "".join(f"    {name}: {text}\n" for name, text in own.items())

    def decorate(work: Callable[..., bool | None]) -> Callable[..., bool | None]:
        @functools.wraps(work, assigned=("__module__", "__name__", "__qualname__"))
        def flow(
            config: PipelineConfig,
            workspace: Path = Path(DEFAULT_WORKSPACE),
            overrides: tuple[Override, ...] = (),
            force: bool = False,  # noqa: FBT001, FBT002  Prefect passes parameters by name
            **further: object,
        ) -> bool | None:
            config = overridden(config, overrides, workspace)
            return work(config, config.layout(workspace), force=force, **further)

        *shared, _ = signature(flow, follow_wrapped=False).parameters.values()
        further = [signature(work).parameters[name] for name in own]
        flow.__dict__["__signature__"] = Signature([*shared, *further])
        # By these Prefect takes a path for a path, where a deployment's run gives it as text.
        flow.__annotations__ |= {parameter.name: parameter.annotation for parameter in further}
        flow.__doc__ = f"{getdoc(work)}{PARAMETERS}{told}"
        return flow

    return decorate


def resume_command(config: PipelineConfig, workspace: Path) -> str:
    """What goes on with a fetch that was stopped: the command as it was typed.

    A class that was put back to be tried again (`--retry`) is not put back once more. Under Prefect
    nothing was typed; then it is a command that does the same.
    """
    spec = sys.modules["__main__"].__spec__
    if spec is None or spec.name not in {"flows.fetch", "flows.full_pipeline"}:
        words = ["flows.fetch", "--profile", config.experiment, "--workspace", str(workspace)]
    else:
        words = [spec.name, *own_option("--retry", sys.argv[1:])[1]]
    return shlex.join(["python", "-m", *words])


def run_flow(
    flow: Callable[..., Any], config: PipelineConfig, layout: Layout, **parameters: object
) -> None:
    """Run a flow as this command's own, on a Prefect server of its own where none is set."""
    import httpx  # noqa: PLC0415  who runs nothing needs no Prefect

    from flows.serving.own_server import check_answers, own_server  # noqa: PLC0415  the same

    with own_server(layout.workspace):
        try:
            run(flow, config, layout.workspace, **parameters)
        except httpx.TransportError:
            check_answers()
            raise


def run_command(main: Callable[[], int | None]) -> NoReturn:
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
        exit_code = main() or 0
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
