"""A web application in a thread of this process, for as long as a block runs."""

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

STOP_S = 3  # for answers under way


@contextmanager
def running(application: Starlette, host: str, port: int) -> Generator[int]:
    """Serve an application and yield its port (0: a free one); nothing is logged.

    Raises:
        OSError: If the port is in use or may not be opened.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=64) as listener:
        config = uvicorn.Config(
            application,
            log_config=None,
            log_level="critical",
            lifespan="off",
            timeout_graceful_shutdown=STOP_S,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(
            target=server.run, args=([listener],), name=f"http-{port}", daemon=True
        )
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
