"""Expected errors end a task Failed at once; what is transient is tried again."""

from collections.abc import Generator

import pytest
from prefect import flow, task
from prefect.testing.utilities import prefect_test_harness

from storage.errors import PipelineError
from tasks import stage as stages
from tasks.stage import expected_errors_fail, run

pytestmark = pytest.mark.long


@pytest.fixture(scope="module", autouse=True)
def server() -> Generator[None]:
    with prefect_test_harness(server_startup_timeout=90):
        yield


@pytest.mark.parametrize(("is_transient", "num_tries"), [(True, 2), (False, 1)])
def test_only_a_transient_error_is_tried_again(*, is_transient: bool, num_tries: int) -> None:
    tries: list[int] = []

    @task(retries=1, retry_delay_seconds=0, retry_condition_fn=stages.is_transient)
    @expected_errors_fail
    def crash() -> None:
        tries.append(1)
        msg = "the child was killed"
        raise PipelineError(msg, exit_code=75, is_transient=is_transient)

    @flow
    @expected_errors_fail
    def stage() -> None:
        run(crash)

    state = stage(return_state=True)
    assert state.name == "Failed"
    assert state.message == "the child was killed"
    with pytest.raises(PipelineError) as caught:
        state.result()
    assert caught.value.exit_code == 75
    assert len(tries) == num_tries
