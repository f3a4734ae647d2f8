"""The settings of the report."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from storage.config import Config, Idle


class ReportConfig(Config):
    """What the tables and pages show."""

    published: bool = True
    """Show published rows of the same benchmark version beside ours."""
    rows: Path | None = None
    """Your own CSV of further rows, with the columns of reports/published.csv."""
    url: Annotated[str, Idle] = "http://127.0.0.1:8090/"
    """Address at which `make serve` shows the reports, for the link on Prefect's pages."""
    remake_s: Annotated[float, Idle, Field(ge=0)] = 60.0
    """Seconds at least between two makings of the pages while a training runs; 0: none is made."""
