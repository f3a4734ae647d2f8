"""What decides a training, told without training."""

from pathlib import Path

from storage.jsonl import write_jsonl
from tasks.train import examples_digest


def test_examples_are_the_same_wherever_their_clips_lie(tmp_path: Path) -> None:
    def lines(name: str, folder: str, answer: int) -> Path:
        row = {"id": 183, "answer": answer, "audio_path": f"{folder}/-HG3Omg_89c_30.wav"}
        write_jsonl(tmp_path / name, [row])
        return tmp_path / name

    here = examples_digest(lines("here", "/data/clips", 1))
    assert examples_digest(lines("moved", "/other/clips", 1)) == here
    assert examples_digest(lines("other", "/data/clips", 2)) != here
