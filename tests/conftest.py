"""What all tests share: examples, a usual SIGINT, an order in which two processes end together."""

import os
import signal

import pytest
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first."""
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow_files)
