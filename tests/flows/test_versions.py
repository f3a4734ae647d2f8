"""`python -m flows.versions`: what two versions of a benchmark ask differently."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from flows.versions import main
from storage.benchmarks.parse import write_questions
from storage.records.question import Question

ROOT = Path(__file__).parents[2]
FIRST = [
    Question(
        f"q{n}", (f"./audios/q{n}.wav",), "What is heard?", ("dog", "cat", "rain"), "dog", "sound"
    )
    for n in range(6)
]
SECOND = [  # in another order, as MMAR's two files are
    replace(FIRST[5], choices=("dog", "cat", "wind")),
    FIRST[0],
    replace(FIRST[1], question="What makes the sound?"),
    replace(FIRST[2], answer="cat"),
    replace(FIRST[3], choices=("rain", "cat", "dog")),
    replace(FIRST[0], id="new"),
]


def write_versions(folder: Path) -> tuple[str, str]:
    write_questions(folder / "first.json", FIRST)
    write_questions(folder / "second.json", SECOND)
    return str(folder / "first.json"), str(folder / "second.json")


def test_questions_are_joined_by_id_and_told_by_what_differs(tmp_path, capsys):
    first, second = write_versions(tmp_path)
    main([first, second])
    told, *counts, _, lines = capsys.readouterr().out.split("\n", maxsplit=6)
    assert told.startswith(f"{first} and {second}: 1 questions alike, 4 differ, 1 only in ")
    assert {" ".join(line.split()) for line in counts[:3]} == {*("1 text", "1 answer", "2 choices")}
    assert lines.splitlines() == [
        "q1  text",
        "q2  answer",
        "q3  choices",
        "q5  choices",
        f"q4  only in {first}",
        f"new  only in {second}",
    ]


def test_clips_are_compared_by_content_where_both_folders_are_named(tmp_path, capsys):
    for folder, byte in (("a", b"1"), ("b", b"2")):
        (tmp_path / folder).mkdir()
        for n in range(6):
            (tmp_path / folder / f"q{n}.wav").write_bytes(byte if n == 4 else b"same")
    write_questions(tmp_path / "one.json", FIRST)
    names = [str(tmp_path / "one.json")] * 2
    folders = ["--first-audio", str(tmp_path / "a"), "--second-audio", str(tmp_path / "b")]
    main([*names, *folders])
    printed = capsys.readouterr().out
    assert "5 questions alike, 1 differ" in printed
    assert "q4  audio" in printed


def test_the_command_needs_no_workspace_and_leaves_none(tmp_path):
    command = [sys.executable, "-m", "flows.versions", *write_versions(tmp_path)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "1 questions alike, 4 differ, 1 only in the first, 1 only in the second" in done.stdout
    assert done.stderr == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.json", "second.json"]
