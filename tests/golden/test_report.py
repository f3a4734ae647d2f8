"""Every byte of a site, held to what was committed: a refactor of the report changes none.

Where a change is meant, `python -m tests.golden.test_report --write` writes the golden files anew;
`--site FOLDER` leaves the whole site in a folder, to be compared with that of another commit.
"""

import argparse
import hashlib
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

from storage.jsonl import read_json, write_json, write_text
from tests.golden.made_site import make_golden_site

GOLDEN = Path(__file__).with_name("report.json")
LEADERBOARD = Path(__file__).with_name("leaderboard.csv")  # whole, so that a diff shows numbers
# Whose text or bytes are in the files.
DRAWN_BY = ("jinja2", "pyarrow")


def digests(site: Path) -> dict[str, str]:
    """sha256 of each file, by its name within the site."""
    return {
        str(path.relative_to(site)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(site.rglob("*"))
        if path.is_file()
    }


def test_no_byte_of_the_site_has_changed(tmp_path: Path) -> None:
    golden = read_json(GOLDEN)
    versions = {name: version(name) for name in DRAWN_BY}
    if versions != golden["versions"]:
        pytest.skip(f"made with {golden['versions']}, here are {versions}")
    site = make_golden_site(tmp_path)
    assert (site / "leaderboard.csv").read_text() == LEADERBOARD.read_text()
    found, expected = digests(site), golden["files"]
    changed = sorted(
        name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)
    )
    assert not changed, (
        f"changed, missing or new: {', '.join(changed)}; --site FOLDER of this module shows the "
        "files, --write accepts them"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.golden.test_report")
    parser.add_argument("--write", action="store_true", help="write the golden files anew")
    parser.add_argument("--site", type=Path, help="folder in which the workspace is left")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site = make_golden_site(options.site or Path(folder))
        if options.write:
            versions = {name: version(name) for name in DRAWN_BY}
            write_json(GOLDEN, {"versions": versions, "files": digests(site)})
            write_text(LEADERBOARD, (site / "leaderboard.csv").read_text(encoding="utf-8"))
    if options.site:
        print(site)  # noqa: T201  a command


if __name__ == "__main__":
    main()
