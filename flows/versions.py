"""What changed between two versions of a benchmark: `python -m flows.versions FIRST SECOND`.

FIRST and SECOND are names (`mmau-test-mini-original`) or files of questions. Needs neither torch
nor Prefect. Not `flows.benchmarks`: Prefect puts flows/ first on sys.path, and a file of that name
would hide the package `benchmarks`.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from flows import DEFAULT_WORKSPACE
from flows.score import load_questions
from storage.benchmarks.difference import Difference, compare
from storage.benchmarks.parse import read_questions


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m flows.versions", description=summary)
    add = parser.add_argument
    add("first", help="name of a benchmark, or its questions' file")
    add("second", help="the same of another version")
    add("--first-audio", type=Path, help="folder of the first one's clips")
    add("--second-audio", type=Path, help="folder of the second one's clips")
    add("--workspace", type=Path, default=Path(DEFAULT_WORKSPACE), help="folder of all data")
    options = parser.parse_args(arguments)
    names = (options.first, options.second)
    first, second = (
        read_questions(Path(name))
        if Path(name).is_file()
        else load_questions(name, None, workspace=options.workspace)[0]
        for name in names
    )
    folders = (options.first_audio, options.second_audio)
    found = compare(first, second, audio=None if None in folders else folders)
    print("\n".join(_lines(found, *names)))


def _lines(found: Difference, first: str, second: str) -> list[str]:
    """Counts, then a line a question that differs."""
    counts = Counter(what for change in found.changed for what in change.what)
    audio = "contents" if found.compares_audio else "names only: give both folders of clips"
    return [
        f"{first} and {second}: {len(found.same)} questions alike, {len(found.changed)} differ, "
        f"{len(found.only_first)} only in the first, {len(found.only_second)} only in the second",
        *(f"  {count:5d}  {what}" for what, count in counts.most_common()),
        f"  (audio compared by {audio})",
        "",
        *(f"{change.id}  {', '.join(change.what)}" for change in found.changed),
        *(f"{name}  only in {first}" for name in found.only_first),
        *(f"{name}  only in {second}" for name in found.only_second),
    ]


if __name__ == "__main__":
    from flows.command import run_command

    run_command(main)
