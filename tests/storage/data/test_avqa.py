"""Annotation rows in, R1-AQA's lines out, and an account that adds up."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.data import avqa
from storage.errors import PipelineError
from storage.jsonl import to_line
from storage.records.clip import ClipState, parse_video_name
from tests.storage.wire import serve

# The row and the line of R1-AQA's README.
ROW = {
    "id": 183,
    "video_name": "-HG3Omg_89c_000030",
    "video_id": 341,
    "question_text": "What happened in the video?",
    "multi_choice": [
        "motorboat",
        "Yacht consignment",
        "Sailboat set sail",
        "Consignment car",
    ],
    "answer": 1,
    "question_relation": "View",
    "question_type": "Happening",
}
PUBLISHED_LINE = (
    '{"id": 183, "video_name": "-HG3Omg_89c_000030", "video_id": 341, '
    '"question_text": "What happened in the video?", "multi_choice": ["motorboat", '
    '"Yacht consignment", "Sailboat set sail", "Consignment car"], "answer": 1, '
    '"question_relation": "View", "question_type": "Happening", "dataset_name": "AVQA", '
    '"audio_path": "Path to wav dir/-HG3Omg_89c_30.wav"}\n'
)
DONE = {"-HG3Omg_89c_000030": ClipState("done")}
ID_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def _read(tmp_path, rows) -> avqa.Annotations:
    path = tmp_path / "train_qa.json"
    path.write_text(json.dumps(rows))
    return avqa.read_annotations(str(path), tmp_path / "cache")


def test_the_published_example_comes_out_byte_for_byte(tmp_path):
    annotations = _read(tmp_path, [ROW])
    converted = avqa.convert(annotations, DONE, audio_dir="Path to wav dir", has_wav=lambda _: True)
    assert to_line(converted.examples[0].as_record()) == PUBLISHED_LINE
    assert converted.dropped == []


@settings(deadline=None)  # the machine may be busy
@given(st.text(ID_LETTERS, min_size=11, max_size=11), st.integers(0, 999_999))
def test_a_name_is_cut_by_position(video_id, start_s):
    clip = parse_video_name(f"{video_id}_{start_s:06d}")
    assert (clip.video_id, clip.start_s) == (video_id, start_s)
    assert clip.file_name == f"{video_id}_{start_s}.wav"


@settings(deadline=None)
@given(st.text(max_size=24))
def test_no_other_text_is_a_name(text):
    try:
        clip = parse_video_name(text)
    except ValueError:
        return
    assert text == f"{clip.video_id}_{clip.start_s:06d}"
    assert "/" not in text
    assert "." not in text


@pytest.mark.parametrize(
    "name",
    ["tooshort_000030", "-HG3Omg_89c_30", "../../../etc_000030", "-HG3Omg_89c_00003\u0660", ""],
)
def test_a_name_that_is_none_is_dropped_with_its_key(tmp_path, name):
    annotations = _read(tmp_path, [ROW | {"video_name": name}])
    assert [each.reason for each in annotations.dropped] == ["malformed:video_name"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer": 4}, "malformed:answer"),
        ({"answer": -1}, "malformed:answer"),
        ({"answer": "1"}, "malformed:answer"),
        ({"answer": True}, "malformed:answer"),
        ({"multi_choice": ["one"]}, "malformed:multi_choice"),
        ({"multi_choice": ["one", 2]}, "malformed:multi_choice"),
        ({"multi_choice": "four"}, "malformed:multi_choice"),
        ({"question_text": None}, "malformed:question_text"),
        ({"question_text": " "}, "malformed:question_text"),
        ({"id": None}, "malformed:id"),
        ({"video_id": [1]}, "malformed:video_id"),
    ],
)
def test_a_malformed_row_never_stops_the_rest(tmp_path, change, reason):
    annotations = _read(tmp_path, [ROW, ROW | change, ROW])
    assert len(annotations.rows) == 2
    assert [each.reason for each in annotations.dropped] == [reason]
    assert "row 1" in annotations.dropped[0].detail


def test_a_missing_key_and_a_row_that_is_no_object_are_named(tmp_path):
    row = {key: value for key, value in ROW.items() if key != "answer"}
    annotations = _read(tmp_path, [row, 17])
    details = [each.detail for each in annotations.dropped]
    assert details == [
        "row 0 (id 183): key 'answer' is missing",
        "row 1 is int, expected an object",
    ]


def test_kept_and_dropped_add_up_to_what_was_read(tmp_path):
    lost, gone, never = "aaaaaaaaaaa_000001", "bbbbbbbbbbb_000002", "ccccccccccc_000003"
    rows = [ROW, *(ROW | {"video_name": name} for name in (lost, gone, never)), ROW | {"answer": 9}]
    states = DONE | {
        lost: ClipState("done"),
        gone: ClipState("invalid", "private", "Private video"),
    }
    converted = avqa.convert(
        _read(tmp_path, rows),
        states,
        audio_dir="clips",
        has_wav=lambda clip: clip.clip_id != lost,
    )
    assert Counter(row.reason for row in converted.dropped) == {
        "malformed:answer": 1,
        "wav-missing": 1,
        "invalid:private": 1,
        "not-fetched": 1,
    }
    assert (len(converted.examples), len(converted.dropped)) == (1, 4)
    avqa.check_usable_share(converted, 0.2)
    with pytest.raises(PipelineError, match=r"only 1 of 5 annotation rows have audio \(20.0%\)"):
        avqa.check_usable_share(converted, 0.21)


def test_too_little_audio_stops_with_the_table_of_reasons(tmp_path):
    converted = avqa.convert(
        _read(tmp_path, [ROW, ROW]), {}, audio_dir="clips", has_wav=lambda _: True
    )
    with pytest.raises(PipelineError, match="2  not-fetched"):
        avqa.check_usable_share(converted, 0.9)
    avqa.check_usable_share(converted, 0.0)


def test_a_clip_that_many_rows_ask_about_is_fetched_once(tmp_path):
    annotations = _read(tmp_path, [ROW, ROW | {"id": 184}])
    assert [clip.clip_id for clip in avqa.clips_of(annotations.rows)] == ["-HG3Omg_89c_000030"]


def test_validation_rows_are_taken_evenly(tmp_path):
    row = _read(tmp_path, [ROW]).rows[0]
    rows = [replace(row, id=number) for number in range(10)]
    assert [row.id for row in avqa.take_evenly(rows, 4)] == [0, 2, 5, 7]
    assert len(avqa.take_evenly(rows, 100)) == 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "are not JSON"),
        ("[" * 100_000, "are not JSON: maximum recursion"),
        ("{}", "expected a JSON list"),
        ("[]", "expected a JSON list"),
    ],
)
def test_a_file_that_is_no_list_of_rows_is_refused(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(PipelineError, match=message):
        avqa.read_annotations(str(tmp_path / "x.json"), tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PipelineError, match=r"nothing\.json cannot be read"):
        avqa.read_annotations(str(tmp_path / "nothing.json"), tmp_path)


def test_annotations_are_downloaded_once(tmp_path):
    (tmp_path / "train_qa.json").write_text(json.dumps([ROW]))
    with serve(tmp_path) as wire:
        url = f"{wire.base}/ok/train_qa.json"
        first = avqa.read_annotations(url, tmp_path / "cache")
        second = avqa.read_annotations(url, tmp_path / "cache")
        assert wire.requests["/ok/train_qa.json"] == 1
    assert first == second


def test_another_content_at_the_published_address_is_refused_and_not_kept(tmp_path):
    path = tmp_path / avqa.TRAIN_PATH.removeprefix("/AlyssaYoung/")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([ROW]))
    with serve(tmp_path) as wire, pytest.raises(PipelineError, match=avqa.TRAIN_BLOB_ID):
        avqa.read_annotations(f"{wire.base}{avqa.TRAIN_PATH}", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_git_blob_id_is_what_git_says():
    assert avqa.git_blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


def test_an_address_that_does_not_answer_is_told_with_what_to_do(tmp_path):
    with serve(tmp_path) as wire, pytest.raises(PipelineError, match="local copy"):
        avqa.read_annotations(f"{wire.base}/404/x.json", tmp_path / "cache")


def test_a_limit_asks_for_the_same_clips_whatever_else_is_in_the_file(tmp_path):
    names = [f"clip{number:07d}_000001" for number in range(40)]
    rows = [ROW | {"id": number, "video_name": name} for number, name in enumerate(names)]
    annotations = _read(tmp_path, [*rows, *rows])
    few, more = (avqa.limit_clips(annotations, limit) for limit in (5, 20))
    assert len(set(avqa.clips_of(few.rows))) == 5
    assert set(few.rows) < set(more.rows)
    without = avqa.limit_clips(_read(tmp_path, rows[10:]), 40)
    assert set(avqa.clips_of(few.rows)) & set(avqa.clips_of(without.rows)) == {
        clip for clip in avqa.clips_of(few.rows) if clip.clip_id in names[10:]
    }
    states = {row.clip.clip_id: ClipState("done") for row in few.rows}
    converted = avqa.convert(few, states, audio_dir="clips", has_wav=lambda _: True)
    assert len(converted.examples) == 10
    assert Counter(row.reason for row in converted.dropped) == {"beyond-limit": 70}
    avqa.check_usable_share(converted, 1.0)
