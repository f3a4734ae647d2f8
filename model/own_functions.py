"""A user's own Python function, named in the settings by its dotted path."""

import hashlib
import importlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from storage.errors import PipelineError


def import_function(path: str, *, key: str, signature: str) -> Callable[..., Any]:
    """Import `package.module.function`; the setting that names it and its signature are told.

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
        raise PipelineError(f"{key} {path}: {error}; {expected}") from error
    if not callable(function):
        raise PipelineError(f"{key} {path} is {type(function).__name__}; {expected}")
    return function


def call_own(function: Callable[..., Any], *arguments: object, setting: str, of: str) -> object:
    """What a user's function gives of an example; where it fails, setting and example are told.

    Raises:
        PipelineError: If it raises anything.
    """
    try:
        return function(*arguments)
    except Exception as error:
        raise PipelineError(f"{setting} fails for {of}: {type(error).__name__}: {error}") from error


def source_digest(path: str) -> str:
    """sha256 of the file that a user's function is in; empty where it is not found."""
    importlib.invalidate_caches()
    try:
        spec = find_spec(path.rpartition(".")[0])
    except (ImportError, AttributeError, ValueError):
        return ""
    file = Path(spec.origin) if spec is not None and spec.origin is not None else None
    return hashlib.sha256(file.read_bytes()).hexdigest() if file and file.is_file() else ""
