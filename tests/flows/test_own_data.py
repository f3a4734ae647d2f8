"""Questions of one's own instead of AVQA's, by the commands that the page of the docs names."""

import json
import re
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from flows.convert import main as convert
from flows.full_pipeline import main
from storage.errors import PipelineError

PAGE = Path("docs/own-data.md")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ten rows that the page makes."""
    (made,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(made, {})  # noqa: S102  the page's own lines
    monkeypatch.undo()
    return tmp_path / "workspace"


def told_by_convert(*options: str) -> str:
    """What the command prints; in a process of its own, as Prefect sets logging up but once."""
    command = [sys.executable, "-m", "flows.convert", *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_pages_rows_are_converted_and_written_as_a_data_set(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--profile", "own-data", "--workspace", str(workspace)]
    told = told_by_convert(*options, "--to-dataset", str(tmp_path / "out"))
    assert "10 rows read = 8 kept + 0 dropped + 2 held out" in told
    root = workspace / "own-data"
    train = [json.loads(line) for line in (root / "train.jsonl").read_text().splitlines()]
    assert {row["dataset_name"] for row in train} == {"own"}
    assert {row["multi_choice"][row["answer"]] for row in train} <= {"low", "middle", "high"}
    (source,) = json.loads((root / "data.json").read_text())["sources"]
    assert (source["name"], source["num_kept"], source["num_held_out"]) == ("lines", 8, 2)
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in found.items()} == {"train": 8, "validation": 2}
    convert(options)
    assert "convert: skipped" in "".join(capsys.readouterr())
    (workspace / "own/clips/3.wav").write_bytes(b"no audio")
    assert "kept + 1 dropped" in told_by_convert(*options)
    dropped = json.loads((root / "dropped.jsonl").read_text())
    assert (dropped["id"], dropped["reason"], dropped["source"]) == ("3", "unreadable", "lines")


def test_a_wrong_mapping_is_one_clear_line(workspace: Path) -> None:
    options = ["--profile", "own-data", "--workspace", str(workspace)]
    with pytest.raises(
        PipelineError,
        match=r"nothing of lines can be used \(10 rows\); the first: "
        r"question '0' \(row 0\): 'right' is 'A', expected an index from 0 to 2",
    ):
        convert([*options, "--set", "data.0.fields.answer_is=index"])
    with pytest.raises(PipelineError, match="nothing is left to train on; lower `held_out`"):
        convert([*options, "--set", "data.0.held_out=10"])
    with pytest.raises(PipelineError, match="give a `weight` to every source"):
        convert([*options, "--set", "data=[{kind: avqa, weight: 1}, {kind: lines, path: x}]"])
    with pytest.raises(PipelineError, match=r"data.0"):
        convert([*options, "--set", "data.0.kind=tape"])


@pytest.mark.long
def test_the_profile_own_data_goes_through_the_whole_pipeline(workspace: Path) -> None:
    main(["--profile", "own-data", "--workspace", str(workspace)])
    site = workspace / "own-data/site"
    page = (site / "data.html").read_text()
    assert "10 rows read: 8 kept, 0 dropped, 2 held out." in page
    assert (workspace / "own-data/training/grpo/checkpoint-4").is_dir()
