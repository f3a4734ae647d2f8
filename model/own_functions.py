"""A user's own Python function, named in the settings by its dotted path."""

import importlib
from collections.abc import Callable
from typing import Any

from storage.errors import PipelineError


def import_function(path: str, *, key: str, signature: str) -> Callable[..., Any]:
    """Import `package.module.function`.

    Args:
        path: Its dotted path.
        key: The setting that names it, for the message.
        signature: What is expected of it, for the message.

    Raises:
        PipelineError: If there is no such function.
    """
    expected = (
        f"expected the dotted path of a function {signature}, importable from where the training "
        "is started"
    )
    module_name, _, function_name = path.rpartition(".")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        msg = f"{key} {path}: {error}; {expected}"
        raise PipelineError(msg) from error
    if not callable(function):
        msg = f"{key} {path} is {type(function).__name__}; {expected}"
        raise PipelineError(msg)
    return function
