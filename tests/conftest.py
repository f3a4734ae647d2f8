"""What all tests share: examples, and a usual SIGINT."""

import os
import signal

from hypothesis import settings

# A commit is judged by the same examples each time; elsewhere every run tries others.
settings.register_profile("same-examples", derandomize=True, database=None, print_blob=True)


def pytest_configure() -> None:
    """The profile of property tests; and Ctrl-C must reach the programs under test.

    Started in the background of a script, this process ignores SIGINT, and so would its children:
    a server that a test stopped by SIGINT ran on, and the test failed.
    """
    if os.environ.get("CI"):
        settings.load_profile("same-examples")
    signal.signal(signal.SIGINT, signal.default_int_handler)
