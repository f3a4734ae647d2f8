"""Entry point of what needs torch for a moment: `python -m model.run_network COMMAND FILE`.

COMMAND is `tiny` (write a small random model), `measure` (write a model's sizes) or `export`; FILE
holds its arguments by name, as JSON.
"""

import sys
from pathlib import Path

from model.network.export import export
from model.network.measure import write_sizes
from model.network.tiny import build_tiny
from storage.errors import PipelineError
from storage.jsonl import read_json

COMMANDS = {"tiny": build_tiny, "measure": write_sizes, "export": export}


def main(command: str, file: str) -> int:
    """Run a command; an expected failure is one line and its exit code."""
    try:
        COMMANDS[command](**read_json(Path(file)))
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  a command
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
