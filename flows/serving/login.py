"""The login of our Prefect servers: without one, any user of the host may run code as us.

Prefect's API takes whatever comes to its port: a PATCH of a deployment makes its next run a shell
script, for every local user and, as it answers every origin, for every web page (PrefectHQ/prefect
11380). The secret lies in a file of the workspace that its owner alone can read.
"""

import os
import secrets
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError

from storage.errors import PipelineError

VARIABLE = "PREFECT_API_AUTH_STRING"  # of everybody who asks the server
SERVER_VARIABLE = "PREFECT_SERVER_API_AUTH_STRING"
UNAUTHORIZED = 401


def login_file(workspace: Path) -> Path:
    """Where a workspace's login lies: `user:secret`, for its owner alone."""
    return workspace / "prefect" / "login"


def new_login() -> str:
    """A login that nobody guesses."""
    return f"r1-aqa:{secrets.token_hex(16)}"


def workspace_login(workspace: Path) -> str:
    """The workspace's login, made where there is none."""
    path = login_file(workspace)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="utf-8").strip()
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(new_login())
    return path.read_text(encoding="utf-8")


def check_login(api_url: str) -> None:
    """Make sure that a server takes our login.

    Raises:
        PipelineError: If it does not; says how to give it another.
    """
    with get_client(sync_client=True) as client:
        try:
            client.read_flows(limit=1)
        except PrefectHTTPStatusError as error:
            if error.response.status_code != UNAUTHORIZED:
                raise
            msg = (
                f"the Prefect server at {api_url} wants a login: "
                f'export {VARIABLE}="$(cat WORKSPACE/prefect/login)", of the workspace it serves, '
                "or start another server: --port 4300 --report-port 8190"
            )
            raise PipelineError(msg) from error
