"""The deployments that `python -m flows.serve` offers, and the process that runs them.

Each is named like its flow (`train/train`), because `prefect deployment run` refuses a bare name.
Their parameters are the profile's configuration and the workspace, so that Prefect's form shows
every setting with its docstring, and refuses a bad value before anything runs. The names of
prefect.yaml's deployments are others (`train/gpu`): a name that was once deployed for a work pool
and is then served crashes every run (Prefect 3.8.8: `FileNotFoundError .../None`).
"""

import functools
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from prefect import serve
from prefect._internal import observers
from prefect.deployments.runner import RunnerDeployment
from prefect.types.entrypoint import EntrypointType
from prefect.utilities.services import critical_service_loop

from flows.command import Command, run_command
from flows.pipeline_config import PipelineConfig
from flows.serving import prefect_flows

POLL_S = 2.0  # between two looks for runs to start; Prefect's default is 10
LAST = 99  # place in Prefect's form: the configuration is 20,000 pixels long, `only` was below it
MAX_FAILED_LOOKS = 100_000  # two days of outage
MAX_RUNS = 8  # at a time; runs that want a busy GPU wait for it


def deployments(config: PipelineConfig, workspace: Path) -> list[RunnerDeployment]:
    """One deployment a flow, with a profile's configuration as its default parameters."""
    known = {"config": config.model_dump(mode="json"), "workspace": str(workspace)}
    made: list[RunnerDeployment] = []
    for flow in prefect_flows.FLOWS:
        deployment = RunnerDeployment.from_flow(
            flow,
            flow.name,
            parameters={name: known[name] for name in known if name in flow.parameters.properties},
            description=(flow.description or "").partition("\n\nArgs:")[0],
            tags=["r1-aqa", config.experiment],
            # By module: run from its file, a flow would have flows/ first on its import path.
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        deployment.entrypoint = f"{prefect_flows.__name__}.{flow.fn.__name__}"
        fields = deployment._parameter_openapi_schema.properties  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  it has no public name
        fields.get("config", {})["position"] = LAST
        # Sent, these would delete every schedule that a user made, and end every pause of theirs.
        deployment.model_fields_set.difference_update({"schedules", "paused"})
        made.append(deployment)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the deployments to the server of PREFECT_API_URL, until a signal comes."""
    _, config, layout = Command("deployments", __doc__).read(arguments)
    # Prefect's runner works in /tmp/runner_storage, which is of the user who served first (3.8.8).
    layout.temporary.mkdir(exist_ok=True)
    tempfile.tempdir = str(layout.temporary)
    # Prefect 3.8.8 calls it from its SIGTERM handler inside a loop, and forgets it; the runs end by
    # the runner's exit.
    warnings.filterwarnings("ignore", "coroutine 'Runner.astop' was never awaited")
    # Prefect's listener for cancellations gives up for good after three failed looks: a server that
    # was away for ten seconds could not cancel anything any more (3.8.8, and 3.9.1 under a private
    # name of its own). tasks/running/alive.py is the net below.
    patient = functools.partial(critical_service_loop, consecutive=MAX_FAILED_LOOKS)
    setattr(observers, critical_service_loop.__name__, patient)
    serve(
        *deployments(config, layout.workspace),
        print_starting_message=False,
        pause_on_shutdown=False,
        limit=MAX_RUNS,
        query_seconds=POLL_S,
    )


if __name__ == "__main__":
    run_command(main)
