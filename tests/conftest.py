"""What all tests share: a usual SIGINT, and an order in which two processes end together."""

import signal

import pytest


def pytest_configure() -> None:
    """Ctrl-C must reach the programs under test.

    Started in the background of a script, this process ignores SIGINT, and so would its children:
    a server that a test stopped by SIGINT ran on, and the test failed.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first."""
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow_files)
