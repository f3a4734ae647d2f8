"""All kinds of `data`: those of the files in this folder."""

import importlib
import pkgutil
from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

import storage.data
from storage.data.source import DataSource

for _module in pkgutil.iter_modules(storage.data.__path__, "storage.data."):
    if _module.name != __name__:
        importlib.import_module(_module.name)

if TYPE_CHECKING:
    AnySource = DataSource
else:
    _kinds = Union[tuple(DataSource.__subclasses__())]  # noqa: UP007  as many as there are files
    AnySource = Annotated[_kinds, Field(discriminator="kind")]
