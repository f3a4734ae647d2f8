"""Manifests: done means the same key and outputs that still stand."""

import os
import shutil
from pathlib import Path

import pytest

from storage import manifest
from storage.errors import PipelineError


@pytest.fixture
def output(tmp_path: Path) -> Path:
    path = tmp_path / "out" / "train.jsonl"
    path.parent.mkdir()
    path.write_text("one\n")
    return path


def test_work_that_was_never_committed_is_not_done(tmp_path: Path) -> None:
    verdict = manifest.check(tmp_path / "convert.json", "convert", {"settings": 1})
    assert verdict == (False, "never done", ())


def test_committed_work_is_done_until_a_part_of_its_key_changes(
    tmp_path: Path, output: Path
) -> None:
    record = tmp_path / "convert.json"
    manifest.commit(record, "convert", {"settings": {"a": 1}, "clips": ["x"]}, [output])
    assert manifest.check(record, "convert", {"settings": {"a": 1}, "clips": ["x"]}).is_done
    changed = manifest.check(record, "convert", {"settings": {"a": 2}, "clips": ["x"]})
    assert changed == (False, "changed: settings (a 1 -> 2)", ("settings",))


def test_changed_settings_are_named_by_key_and_those_that_may_be_secret_without_value(
    tmp_path: Path, output: Path
) -> None:
    record = tmp_path / "fetch.json"
    before = {"grpo": {"beta": 0.04}, "orders": ["a"], "sources": [{"proxy": "http://u:pw@h"}]}
    manifest.commit(record, "fetch", {"settings": before}, [output])
    assert "pw" not in record.read_text()
    now = {"grpo": {"beta": 0.0, "seed": 1}, "orders": [], "sources": [{"proxy": "http://u:xx@h"}]}
    assert manifest.check(record, "fetch", {"settings": now}).reason == (
        "changed: settings (grpo.beta 0.04 -> 0.0, grpo.seed not set -> 1, orders ['a'] -> [], "
        "sources)"
    )


def test_a_part_that_comes_or_goes_counts_as_a_change(tmp_path: Path, output: Path) -> None:
    record = tmp_path / "convert.json"
    manifest.commit(record, "convert", {"settings": 1}, [output])
    assert manifest.check(record, "convert", {"settings": 1, "clips": 2}).reason == "changed: clips"


def test_a_missing_or_changed_output_is_not_done(tmp_path: Path, output: Path) -> None:
    record = tmp_path / "convert.json"
    manifest.commit(record, "convert", {}, [output.parent])
    output.write_text("two\n")  # the same size, another time
    os.utime(output, ns=(1, 1))
    assert manifest.check(record, "convert", {}).reason == f"output changed: {output}"
    output.unlink()
    assert manifest.check(record, "convert", {}).reason == f"output missing: {output}"


def test_a_touched_output_with_the_same_bytes_is_still_done(tmp_path: Path, output: Path) -> None:
    record = tmp_path / "convert.json"
    manifest.commit(record, "convert", {}, [output])
    os.utime(output, ns=(1, 1))
    assert manifest.check(record, "convert", {}).is_done


def test_a_copied_workspace_looks_at_its_own_files(tmp_path: Path) -> None:
    original, copy = tmp_path / "one", tmp_path / "elsewhere" / "two"
    (original / "out").mkdir(parents=True)
    (original / "out" / "train.jsonl").write_text("one\n")
    manifest.commit(original / "manifests" / "convert.json", "convert", {}, [original / "out"])
    shutil.copytree(original, copy)
    (original / "out" / "train.jsonl").unlink()
    assert manifest.check(copy / "manifests" / "convert.json", "convert", {}).is_done
    (copy / "out" / "train.jsonl").unlink()
    verdict = manifest.check(copy / "manifests" / "convert.json", "convert", {})
    assert verdict.reason == f"output missing: {copy / 'out' / 'train.jsonl'}"


def test_nothing_is_recorded_when_an_output_is_missing(tmp_path: Path) -> None:
    record = tmp_path / "convert.json"
    with pytest.raises(PipelineError, match=r"convert ended without its output .*nowhere"):
        manifest.commit(record, "convert", {}, [tmp_path / "nowhere"])
    assert not record.exists()


def test_a_torn_manifest_says_nothing(tmp_path: Path) -> None:
    record = tmp_path / "convert.json"
    record.write_text('{"unit": "convert", "key')
    assert manifest.read(record) is None


def test_the_digest_follows_the_contents_and_not_the_time(tmp_path: Path, output: Path) -> None:
    first = manifest.commit(tmp_path / "a.json", "convert", {}, [output])
    os.utime(output, ns=(5, 5))
    second = manifest.commit(tmp_path / "b.json", "convert", {}, [output])
    assert first.digest == second.digest
    output.write_text("other\n")
    assert manifest.commit(tmp_path / "c.json", "convert", {}, [output]).digest != first.digest


def test_what_may_be_deleted_is_missed_by_nobody_and_what_was_changed_is(tmp_path: Path) -> None:
    folder, record = tmp_path / "out", tmp_path / "train.json"
    for name in ("checkpoint-1", "checkpoint-2"):
        (folder / name).mkdir(parents=True)
        (folder / name / "weights").write_text(name)
    manifest.commit(record, "train", {}, [folder])
    may_go = [folder / "checkpoint-1"]
    (folder / "checkpoint-1" / "weights").unlink()
    assert manifest.check(record, "train", {}, may_go=may_go).is_done
    assert not manifest.check(record, "train", {}).is_done
    (folder / "checkpoint-1" / "weights").write_text("other")
    assert not manifest.check(record, "train", {}, may_go=may_go).is_done


def test_a_large_file_is_read_once_and_again_when_it_has_changed(tmp_path: Path) -> None:
    file, memory = tmp_path / "model.safetensors", tmp_path / "digests.jsonl"
    file.write_bytes(bytes(manifest.REMEMBERED_BYTES))
    first = manifest.remembered_digest(file, memory)
    assert first == manifest.file_digest(file) == manifest.remembered_digest(file, memory)
    assert len(memory.read_text().splitlines()) == 1
    with memory.open("a") as log:
        log.write('{"state": [1')  # of a run that was killed
    with file.open("r+b") as weights:
        weights.write(b"x")
    assert manifest.remembered_digest(file, memory) == manifest.file_digest(file) != first
