"""Counts, statistics, tables, charts and pages.

In a notebook, from the repository's root:

```python
from reports import results

table = results("workspace/paper")
table[table.control.isna()].groupby(["model", "scorer", "task"]).right.mean()
```
"""

from pathlib import Path
from typing import TYPE_CHECKING

from storage.errors import PipelineError

if TYPE_CHECKING:
    import pandas as pd


def results(experiment: str | Path) -> "pd.DataFrame":
    """Every answer of an experiment (`workspace/paper`): the table of `reports.numbers.results`.

    Raises:
        PipelineError: If the report has not been made.
    """
    import pandas as pd  # noqa: PLC0415  half a second, which the pipeline need not pay

    path = Path(experiment) / "site" / "results.parquet"
    if not path.exists():
        msg = f"{path} is missing; run the report stage, which writes it"
        raise PipelineError(msg)
    return pd.read_parquet(path, dtype_backend="numpy_nullable")
