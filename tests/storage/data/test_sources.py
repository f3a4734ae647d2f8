"""Rows of any shape as training examples, and an account of those that are none."""

import json
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from storage.data import mixture
from storage.data.hub import HubSource, write_dataset
from storage.data.lines import LinesSource
from storage.data.source import Rows, without_unreadable
from storage.errors import PipelineError
from storage.jsonl import write_jsonl
from storage.mapping import RowMapping
from storage.records.example import Example

# The keys and types of Harland/AudioMCQ-StrongAC-GeminiCoT.
AUDIOMCQ = {
    "source_dataset": "AudioCaps",
    "id": "12",
    "question_type": "sound",
    "audio_path": "AudioCaps/aa_30.wav",
    "question": "What is poured?",
    "choices": ["Sand", "Water", "Coins", "Nails"],
    "answer": "Water",
    "gemini_cot": "...",
}
R1_AQA = {
    "id": 183,
    "video_name": "-HG3Omg_89c_000030",
    "video_id": 341,
    "question_text": "What happened in the video?",
    "multi_choice": ["motorboat", "Yacht consignment", "Sailboat set sail", "Consignment car"],
    "answer": 1,
    "question_relation": "View",
    "question_type": "Happening",
    "dataset_name": "AVQA",
    "audio_path": "./Joysw909/AVQA/VGG10000/-HG3Omg_89c_30.wav",
}


def clip(path: Path, level: float = 0.25) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(1600, level), 16_000)
    return path


def test_r1_aqas_lines_come_out_as_they_went_in(tmp_path: Path) -> None:
    there = clip(tmp_path / "clips/-HG3Omg_89c_30.wav")
    write_jsonl(tmp_path / "train.jsonl", [R1_AQA])
    source = LinesSource(path=tmp_path / "train.jsonl", audio=tmp_path / "clips")
    ((example,), dropped) = source.read(tmp_path / "cache")
    assert not dropped
    assert example.as_record() == {**R1_AQA, "audio_path": str(there)}
    assert list(example.as_record()) == list(R1_AQA)


def test_rows_that_are_no_examples_are_dropped_by_key_and_row(tmp_path: Path) -> None:
    clip(tmp_path / "-HG3Omg_89c_30.wav")
    bad = [
        {**R1_AQA, "id": 1, "answer": 4},
        {**R1_AQA, "id": 2, "multi_choice": "motorboat"},
        {**R1_AQA, "id": 3, "audio_path": "gone.wav"},
        {**R1_AQA, "id": 4, "answer": None},
    ]
    write_jsonl(tmp_path / "train.jsonl", [R1_AQA, *bad])
    rows = LinesSource(path=tmp_path / "train.jsonl").read(tmp_path)
    assert len(rows.examples) == 1
    assert [(row.reason, row.source) for row in rows.dropped] == [
        ("malformed:answer", "lines"),
        ("malformed:multi_choice", "lines"),
        ("audio-missing", "lines"),
        ("malformed:answer", "lines"),
    ]
    assert rows.dropped[0].detail == (
        "question 1 (row 1): 'answer' is 4, expected an index from 0 to 3"
    )


def test_a_folder_of_audio_with_a_csv_is_a_source(tmp_path: Path) -> None:
    clip(tmp_path / "audio/deep/one.wav")
    (tmp_path / "rows.csv").write_text("clip,q,yes,no,right\none.wav,Is it loud?,yes,no,B\n")
    fields = RowMapping(
        id=None, audio_id="clip", question="q", choices=("yes", "no"), answer="right"
    ).model_copy(update={"answer_is": "letter"})
    source = LinesSource(
        path=tmp_path / "rows.csv", audio=tmp_path / "audio", fields=fields, name="mine"
    )
    ((example,), _) = source.read(tmp_path)
    assert (example.multi_choice, example.answer, example.dataset_name) == (
        ("yes", "no"),
        1,
        "mine",
    )
    assert len(str(example.id)) == 12


def test_audiomcqs_rows_are_read_by_their_own_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of the data set's layout: data.jsonl at the root, clips in folders beside it."""
    clip(tmp_path / "copy/AudioCaps/aa_30.wav")
    twin = {**AUDIOMCQ, "source_dataset": "Clotho", "answer": "Milk"}
    write_jsonl(tmp_path / "copy/data.jsonl", [AUDIOMCQ, twin])
    known = tmp_path / "datasets.yaml"
    shipped = Path("storage/data/datasets.yaml").read_text()
    copied = shipped.replace("Harland/AudioMCQ-StrongAC-GeminiCoT:", f"{tmp_path / 'copy'}:")
    known.write_text(copied)
    monkeypatch.setattr("storage.data.hub.KNOWN", known)
    rows = HubSource(dataset=str(tmp_path / "copy")).read(tmp_path / "cache")
    (example,) = rows.examples
    assert (example.id, example.dataset_name, example.answer) == ("AudioCaps-12", "AudioCaps", 1)
    assert example.question_type == "sound"
    (dropped,) = rows.dropped
    assert dropped.detail.endswith("'answer' is 'Milk', expected one of the choices")


def parquet(folder: Path, rows: list[dict[str, object]]) -> None:
    texts = {key: datasets.Value("string") for key in rows[0] if key not in {"audio", "choices"}}
    features = datasets.Features(
        {
            **texts,
            "choices": datasets.List(datasets.Value("string")),
            "audio": datasets.Audio(decode=False),
        }
    )
    folder.mkdir()
    table = pa.Table.from_pylist(rows, schema=features.arrow_schema)
    pq.write_table(table, folder / "train-00000-of-00001.parquet")


def test_a_data_set_with_audio_inside_is_brought_once(tmp_path: Path) -> None:
    audio = {"bytes": clip(tmp_path / "x.wav").read_bytes(), "path": "x.wav"}
    row = {"id": "a", "question": "What?", "choices": ["rain", "wind"], "answer": "wind"}
    parquet(tmp_path / "hub", [{**row, "audio": audio}, {**row, "id": "b", "audio": audio}])
    fields = RowMapping(audio_id="audio", dataset=None)
    source = HubSource(dataset=str(tmp_path / "hub"), fields=fields)
    first = source.read(tmp_path / "cache")
    assert [(example.id, example.answer) for example in first.examples] == [("a", 1), ("b", 1)]
    brought = sorted((tmp_path / "cache").rglob("*.wav"))
    assert [path.name for path in brought] == ["row-000000.wav", "row-000001.wav"]
    stamps = [path.stat().st_mtime_ns for path in brought]
    assert source.read(tmp_path / "cache") == first
    assert [path.stat().st_mtime_ns for path in brought] == stamps


def test_a_data_set_without_audio_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    pq.write_table(pa.table({"id": ["a"], "question": ["What?"]}), folder / "train.parquet")
    with pytest.raises(PipelineError, match=r"row 0 has no audio inside, its columns are id, que"):
        HubSource(dataset=str(folder)).read(tmp_path / "cache")


def make(name: str, audio: str, dataset: str = "own", text: str = "What?") -> Example:
    return Example(name, text, ("rain", "wind"), 0, audio, dataset)


def test_held_out_rows_are_about_clips_of_their_own_and_follow_from_the_seed() -> None:
    examples = [make(f"{clip}-{number}", f"{clip}.wav") for clip in range(20) for number in (1, 2)]
    content = {example.audio_path: f"sha of {example.audio_path}" for example in examples}
    source = LinesSource(path=Path("x"), held_out=7)
    train, held_out = mixture.hold_out(source, examples, content)
    assert len(held_out) == 8  # whole clips
    assert len(train) + len(held_out) == 40
    assert not {row.audio_path for row in train} & {row.audio_path for row in held_out}
    assert mixture.hold_out(source, examples[::-1], content)[1] == held_out[::-1]
    other = source.model_copy(update={"seed": 7})
    assert mixture.hold_out(other, examples, content)[1] != held_out


def test_weights_are_one_on_average_and_give_each_source_its_share() -> None:
    few = [make(f"f{number}", "f.wav") for number in range(2)]
    many = [make(f"m{number}", "m.wav") for number in range(6)]
    sources = [
        (LinesSource(path=Path("x"), weight=3), few),
        (LinesSource(path=Path("y"), weight=1), many),
    ]
    found = mixture.weigh(sources)
    assert [example.weight for example in found] == [3.0] * 2 + [0.333333] * 6
    plain = [(LinesSource(path=Path("x")), few)]
    assert mixture.weigh(plain) == few
    assert "weight" not in few[0].as_record()
    assert found[0].as_record()["weight"] == 3.0


def test_what_is_there_twice_is_said() -> None:
    train = [make("1", "a.wav"), make("2", "copy-of-a.wav", text=" what? "), make("3", "b.wav")]
    held_out = [make("4", "b.wav"), make("5", "c.wav")]
    content = {"a.wav": "A", "copy-of-a.wav": "A", "b.wav": "B", "c.wav": "C"}
    assert mixture.repeated(train, held_out, content) == [
        "1 questions are asked twice on the same audio; the first: id 1 and id 2",
        "1 questions are held out and trained on; the first: id 3 and id 4",
    ]
    assert mixture.held_by([make("1", "a.wav", dataset="clotho")], {"mmau": ("Clotho", "X")}) == [
        "trains on clotho, which mmau holds by construction"
    ]


def test_clips_that_do_not_decode_are_dropped_by_reason() -> None:
    rows = Rows([make("1", "a.wav"), make("2", "b.wav")], [])
    kept, dropped = without_unreadable(rows, "mine", {"b.wav": {"reason": "b.wav is empty"}})
    assert [example.id for example in kept] == ["1"]
    assert [(row.id, row.reason, row.detail) for row in dropped] == [
        ("2", "unreadable", "b.wav is empty")
    ]


def test_lines_become_a_data_set_that_load_dataset_reads(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.wav")
    lines = {"train": tmp_path / "train.jsonl", "validation": tmp_path / "validation.jsonl"}
    write_jsonl(lines["train"], [make(str(number), str(path)).as_record() for number in range(3)])
    write_jsonl(lines["validation"], [make("9", str(path)).as_record()])
    assert write_dataset(lines, tmp_path / "out") == 4
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in found.items()} == {"train": 3, "validation": 1}
    row = found["train"].cast_column("audio", datasets.Audio(decode=False))[2]
    assert (row["id"], row["multi_choice"], row["answer"]) == ("2", ["rain", "wind"], 0)
    assert row["audio"] == {"bytes": path.read_bytes(), "path": "a.wav"}
    assert json.dumps(row["audio_path"]) == json.dumps(str(path))
    with pytest.raises(PipelineError, match="is not empty: name a new folder"):
        write_dataset(lines, tmp_path / "out")


def test_a_kind_of_source_is_one_file_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "tape.py").write_text(
        "from pathlib import Path\n"
        "from typing import Literal\n"
        "from storage.data.source import DataSource, Rows\n"
        "class TapeSource(DataSource):\n"
        "    kind: Literal['tape'] = 'tape'\n"
        "    reel: int = 1\n"
        "    def read(self, cache: Path) -> Rows:\n"
        "        return Rows([], [])\n"
        "    def decides(self, cache: Path) -> object:\n"
        "        return self.reel\n"
    )
    code = (
        f"import storage.data; storage.data.__path__.append({str(tmp_path)!r})\n"
        "from flows.pipeline_config import PipelineConfig\n"
        "settings = {'experiment': 'x', 'data': [{'kind': 'tape', 'reel': 7}]}\n"
        "(source,) = PipelineConfig.model_validate(settings).data\n"
        "print(source.label, source.decides(None), source.read(None).examples)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "tape 7 []\n"


def test_a_whole_source_may_be_validation() -> None:
    examples = [make("1", "a.wav"), make("2", "b.wav")]
    source = LinesSource(path=Path("x"), validation=True)
    assert mixture.hold_out(source, examples, {}) == ([], examples)
