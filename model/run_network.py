"""Entry point of what needs torch for a moment: `python -m model.run_network COMMAND FILE`.

COMMAND is `tiny` (write a small random model), `measure` (write a model's sizes) or `export`; FILE
holds its arguments by name, as JSON.
"""

import sys
from pathlib import Path

from model.command import run_command
from model.network.export import export
from model.network.measure import write_sizes
from model.network.tiny import build_tiny
from storage.jsonl import read_json

COMMANDS = {"tiny": build_tiny, "measure": write_sizes, "export": export}


def main(*arguments: str) -> int:
    """Run a command; an expected failure is one line and its exit code."""
    return run_command(
        arguments,
        "COMMAND FILE",
        lambda command, file: COMMANDS[command](**read_json(Path(file))),
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
