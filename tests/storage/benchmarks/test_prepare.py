import hashlib
import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile

from storage.benchmarks.prepare import prepare, prepare_validation
from storage.benchmarks.published import find_published, list_published, prepare_questions
from storage.config import BenchmarkConfig
from storage.errors import PipelineError


def row(name: str, **changes: object) -> dict[str, object]:
    made: dict[str, object] = {
        "id": name,
        "audio_id": f"./test-mini-audios/{name}.wav",
        "question": f"What is in {name}?",
        "choices": ["Man", "Woman"],
        "answer": "Man",
        "dataset": "AudioSet",
        "task": "sound",
        "split": "test-mini",
        "category": "Reasoning",
        "sub-category": "Counting",
        "difficulty": "easy",
    }
    return made | changes


def world(folder: Path, *names: str) -> BenchmarkConfig:
    (folder / "test-mini-audios").mkdir(parents=True)
    for name in names:
        soundfile.write(folder / f"test-mini-audios/{name}.wav", np.full(1600, 0.25), 16_000)
    questions = folder / "mine.json"
    questions.write_text(json.dumps([row(name) for name in names]))
    return BenchmarkConfig(name="mine", questions=str(questions), audio=str(folder))


def test_every_published_benchmark_can_be_read() -> None:
    assert list_published() == [
        "adqa-dev",
        "mmar-2025-05",
        "mmar-2026-02",
        "mmau-test",
        "mmau-test-mini-original",
        "mmau-test-mini-v05.15.25",
        "mmsu",
    ]
    found = [find_published(name) for name in list_published()]
    assert [benchmark.num_questions for benchmark in found if benchmark] == [
        *(1607, 1000, 1000, 9000, 1000, 1000, 5000)
    ]
    assert [benchmark.name for benchmark in found if benchmark] == list_published()
    assert find_published("demo") is None
    assert find_published("../benchmark") is None


def test_the_two_versions_of_test_mini_have_the_digests_of_their_commits() -> None:
    digests = {name: found.sha256 for name in list_published() if (found := find_published(name))}
    assert digests["mmau-test-mini-original"].startswith("e8cc09223b497191")
    assert digests["mmau-test-mini-v05.15.25"].startswith("9f18fda99f8dbc2b")


def test_questions_and_clips_in_a_folder_are_made_ready(tmp_path: Path) -> None:
    config = world(tmp_path / "world", "a", "b")
    seen: list[tuple[str, int, int]] = []
    benchmark = prepare(config, tmp_path / "out", lambda *told: seen.append(told))
    assert [question.id for question in benchmark.questions] == ["a", "b"]
    assert benchmark.audio == tmp_path / "world"
    assert benchmark.is_test
    assert seen[-1] == ("clips checked", 2, 2)
    folder = tmp_path / "out" / benchmark.key
    written = (folder / "questions.json").read_bytes()
    assert written == Path(str(config.questions)).read_bytes()  # the published bytes, untouched
    assert benchmark.key == f"mine-{hashlib.sha256(written).hexdigest()[:8]}"
    clips = json.loads((folder / "clips.json").read_text())
    clip = tmp_path / "world/test-mini-audios/a.wav"
    assert clips["a"]["sha256"] == hashlib.sha256(clip.read_bytes()).hexdigest()


def test_the_digest_changes_with_a_clip_and_not_with_its_date(tmp_path: Path) -> None:
    config = world(tmp_path / "world", "a", "b")
    first = prepare(config, tmp_path / "out").digest
    clip = tmp_path / "world/test-mini-audios/a.wav"
    clip.touch()
    assert prepare(config, tmp_path / "out").digest == first
    soundfile.write(clip, np.full(1600, 0.5), 16_000)
    assert prepare(config, tmp_path / "out").digest != first


def test_another_file_under_the_same_name_is_another_benchmark(tmp_path: Path) -> None:
    """Two experiments that wrote other questions under one name disturbed each other's reports."""
    config = world(tmp_path / "world", "a", "b")
    first = prepare(config, tmp_path / "out")
    path = Path(str(config.questions))
    path.write_text(json.dumps([row("a"), row("b", answer="Woman")]))
    second = prepare(config, tmp_path / "out")
    assert (first.name, second.name) == ("mine", "mine")
    assert first.key != second.key
    assert first.questions_path.read_bytes() != second.questions_path.read_bytes()


def test_questions_that_can_no_longer_be_read_are_those_of_before(tmp_path: Path) -> None:
    config = world(tmp_path / "world", "a")
    before = prepare_questions(config, tmp_path / "out")
    Path(str(config.questions)).unlink()
    assert prepare_questions(config, tmp_path / "out") == before


def test_the_name_of_the_held_out_examples_is_taken(tmp_path: Path) -> None:
    config = world(tmp_path / "world", "a").model_copy(update={"name": "validation"})
    with pytest.raises(PipelineError, match="cannot be named validation"):
        prepare(config, tmp_path / "out")


def test_clips_that_cannot_be_used_are_named_and_refused(tmp_path: Path) -> None:
    config = world(tmp_path / "world", "a", "b", "c")
    (tmp_path / "world/test-mini-audios/b.wav").write_bytes(b"")
    (tmp_path / "world/test-mini-audios/c.wav").unlink()
    with pytest.raises(
        PipelineError, match=r"2 of 3 clips of mine cannot be used: b, c\. .*allow_"
    ):
        prepare(config, tmp_path / "out")
    allowed = config.model_copy(update={"allow_unreadable": True})
    assert len(prepare(allowed, tmp_path / "out").questions) == 3


def test_silence_needs_no_clips(tmp_path: Path) -> None:
    config = world(tmp_path / "world", "a")
    silent = config.model_copy(update={"audio": None, "silence": True})
    assert prepare(silent, tmp_path / "out").audio is None


def test_an_own_benchmark_without_questions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"not a published one \(adqa-dev, .*`questions`"):
        prepare(BenchmarkConfig(name="mine"), tmp_path)


def test_another_file_under_a_published_name_is_refused(tmp_path: Path) -> None:
    """Several files were published as v05.15.25; a name must mean one of them."""
    config = world(tmp_path / "world", "a")
    renamed = config.model_copy(update={"name": "mmau-test-mini-original"})
    with pytest.raises(PipelineError, match=r"sha256 .*, expected e8cc.*give yours another name"):
        prepare_questions(renamed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_of_another_length_under_a_published_name_is_refused(tmp_path: Path) -> None:
    config = world(tmp_path / "world", "a").model_copy(update={"name": "mmau-test"})
    with pytest.raises(PipelineError, match="1 questions, expected 9000"):
        prepare_questions(config, tmp_path / "out")


def test_nothing_that_says_where_the_clips_are_is_refused(tmp_path: Path) -> None:
    config = world(tmp_path / "world", "a").model_copy(update={"audio": None})
    with pytest.raises(PipelineError, match="set its `audio` to the folder"):
        prepare(config, tmp_path / "out")
    config = config.model_copy(update={"audio": "no such folder"})
    with pytest.raises(PipelineError, match="no such folder, and no data set"):
        prepare(config, tmp_path / "out")


def test_questions_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"gone\.json: No such file"):
        prepare_questions(
            BenchmarkConfig(name="mine", questions=str(tmp_path / "gone.json")), tmp_path
        )


def wav_bytes(folder: Path, level: float) -> bytes:
    soundfile.write(folder / "x.wav", np.full(1600, level), 16_000)
    return (folder / "x.wav").read_bytes()


def parquet(folder: Path, rows: list[dict[str, object]]) -> str:
    made = datasets.Dataset.from_list(rows)
    column = "context" if "context" in made.column_names else "audio"
    made = made.cast_column(column, datasets.Audio(decode=False))
    (folder / "data").mkdir(parents=True)
    made.to_parquet(str(folder / "data/test-00000-of-00001.parquet"))
    return str(folder)


def peak(path: Path) -> float:
    return float(np.abs(soundfile.read(path)[0]).max())


def test_clips_come_out_of_a_data_set_like_the_hubs_test_mini(tmp_path: Path) -> None:
    """Its rows name themselves in a JSON text, and prefix the choices with letters."""
    config = world(tmp_path / "world", "a", "b")
    rows: list[dict[str, object]] = [
        {
            "context": {"bytes": wav_bytes(tmp_path, level), "path": "audio.wav"},
            "instruction": f"What is in {name}?",
            "choices": ["(A) Man", "(B) Woman"],
            "answer": "(A) Man",
            "other_attributes": json.dumps({"id": name, "task": "sound"}),
        }
        for name, level in [("b", 0.5), ("a", 0.25), ("of another version", 0.75)]
    ]
    config = config.model_copy(update={"audio": parquet(tmp_path / "hub", rows)})
    benchmark = prepare(config, tmp_path / "out")
    audio = tmp_path / "out" / benchmark.key / "audio"
    assert benchmark.audio == audio
    assert peak(audio / "a.wav") == pytest.approx(0.25)
    assert peak(audio / "b.wav") == pytest.approx(0.5)
    assert len(list(audio.iterdir())) == 2


def test_rows_without_an_id_are_matched_by_question_and_choices(tmp_path: Path) -> None:
    config = world(tmp_path / "world", "a", "b")
    rows: list[dict[str, object]] = [
        {
            "audio": {"bytes": wav_bytes(tmp_path, level), "path": None},
            "question": f"What is in {name}?",
            "choices": '["Man", "Woman"]',
            "answer": "Man",
        }
        for name, level in [("b", 0.5), ("a", 0.25)]
    ]
    config = config.model_copy(update={"audio": parquet(tmp_path / "hub", rows)})
    audio = prepare(config, tmp_path / "out").audio
    assert audio
    assert peak(audio / "a.wav") == pytest.approx(0.25)


def test_a_clip_named_as_another_question_s_id_is_its_own_question_s(tmp_path: Path) -> None:
    """Questions 1 and 2 with clips 0.wav and 1.wav: 1.wav went to question 1."""
    config = world(tmp_path / "world", "1", "2")
    questions = [row("1", audio_id="./test-mini-audios/0.wav")]
    questions += [row("2", audio_id="./test-mini-audios/1.wav")]
    Path(config.questions or "").write_text(json.dumps(questions))
    rows: list[dict[str, object]] = [
        {"audio": {"bytes": wav_bytes(tmp_path, level), "path": f"{stem}.wav"}}
        for stem, level in [("1", 0.5), ("0", 0.25)]
    ]
    config = config.model_copy(update={"audio": parquet(tmp_path / "hub", rows)})
    audio = prepare(config, tmp_path / "out").audio
    assert audio
    assert [peak(audio / f"{name}.wav") for name in "01"] == pytest.approx([0.25, 0.5])


def test_clips_that_the_data_set_lacks_are_named(tmp_path: Path) -> None:
    config = world(tmp_path / "world", "a", "b")
    rows: list[dict[str, object]] = [
        {"audio": {"bytes": wav_bytes(tmp_path, 0.5), "path": "a.wav"}, "id": "a"}
    ]
    config = config.model_copy(update={"audio": parquet(tmp_path / "hub", rows)})
    with pytest.raises(PipelineError, match="1 of 2 clips of mine cannot be used: b"):
        prepare(config, tmp_path / "out")


def test_validation_examples_become_a_benchmark_that_is_no_test(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "v_30.wav", np.full(1600, 0.25), 16_000)
    example = {
        "id": 1,
        "question_text": "What happened in the audio?",
        "multi_choice": ["rain", "wind"],
        "answer": 1,
        "audio_path": str(tmp_path / "v_30.wav"),
    }
    benchmark = prepare_validation([example], tmp_path / "benchmarks")
    assert benchmark.name == "validation"
    assert not benchmark.is_test
    assert benchmark.questions[0].answer == "wind"
    assert benchmark.audio == tmp_path
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copy2(tmp_path / "v_30.wav", moved)
    example["audio_path"] = str(moved / "v_30.wav")
    assert prepare_validation([example], moved / "benchmarks").digest == benchmark.digest
