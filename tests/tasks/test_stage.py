"""Expected errors end a task Failed at once; what is transient is tried again."""

from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.testing.utilities import prefect_test_harness

from storage.errors import PipelineError
from tasks.running.prefect_form import as_flow, as_task
from tasks.stage import task

pytestmark = pytest.mark.long


@pytest.fixture(scope="module", autouse=True)
def server() -> Generator[None]:
    with prefect_test_harness(server_startup_timeout=90):
        yield


@pytest.mark.parametrize(("is_transient", "num_tries"), [(True, 3), (False, 1)])
def test_only_a_transient_error_is_tried_again(
    tmp_path: Path, *, is_transient: bool, num_tries: int
) -> None:
    tries: list[int] = []

    @task("crash", goes_on=True)
    def crash() -> None:
        tries.append(1)
        msg = "the child was killed"
        raise PipelineError(msg, exit_code=75, is_transient=is_transient)

    def stage_flow(config: Any, workspace: Path) -> None:  # noqa: ARG001  read by Prefect's form
        at_once = as_task(crash).with_options(retry_delay_seconds=0)
        at_once(return_state=True).result()

    config = SimpleNamespace(experiment="demo", notify=None)
    state = as_flow(stage_flow)(config, tmp_path, return_state=True)
    assert state.name == "Failed"
    assert state.message == "the child was killed"
    with pytest.raises(PipelineError) as caught:
        state.result()
    assert caught.value.exit_code == 75
    assert len(tries) == num_tries
