"""The ledger: what it keeps, what it gives back, and what it refuses."""

import sqlite3
from dataclasses import replace

import pytest

from storage.data.avqa import Clip
from storage.errors import PipelineError
from storage.fetch.failures import Failure
from storage.fetch.ledger import Ledger

CLIPS = [Clip(f"video_-{n:04d}_000030", f"video_-{n:04d}", 30) for n in range(6)]


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        opened.add(CLIPS, clip_length_s=10.0)
        yield opened


def _put(ledger: Ledger, index: int, **changes) -> None:
    row = replace(ledger.rows([CLIPS[index]])[0], **changes)
    ledger.write(row, run=1, seconds=0.5)


def test_a_clip_asked_for_again_keeps_its_state(ledger):
    _put(ledger, 0, state="done", attempts=2, sha256="ab", silent=True)
    ledger.add(CLIPS, clip_length_s=10.0)
    row = ledger.rows([CLIPS[0]])[0]
    assert (row.state, row.attempts, row.sha256, row.silent, row.short) == (
        "done",
        2,
        "ab",
        True,
        False,
    )


def test_a_clip_wanted_in_another_length_is_cut_again(ledger):
    _put(ledger, 0, state="done")
    _put(ledger, 1, state="invalid", reason_code="private")
    ledger.add(CLIPS, clip_length_s=2.0)
    states = [(row.state, row.clip_length_s) for row in ledger.rows(CLIPS[:2])]
    assert states == [("pending", 2.0), ("invalid", 2.0)]


def test_rows_come_in_the_order_asked_for_and_only_those_known(ledger):
    unknown = Clip("unknown-vid_000001", "unknown-vid", 1)
    rows = ledger.rows([CLIPS[3], unknown, CLIPS[1]])
    assert [row.clip_id for row in rows] == [CLIPS[3].clip_id, CLIPS[1].clip_id]


def test_every_try_is_a_line_that_stays(ledger):
    _put(ledger, 0, state="retry", reason_code="timeout", message="timed out", attempts=1)
    _put(ledger, 0, state="done", reason_code="", message="", attempts=2)
    refusal = Failure("blocked", "bot-check", "Sign in", 403)
    ledger.note_refusal(CLIPS[1].clip_id, run=1, failure=refusal)
    with sqlite3.connect(ledger.path) as connection:
        lines = connection.execute("SELECT clip_id, state, reason_code FROM attempt").fetchall()
    assert lines == [
        (CLIPS[0].clip_id, "retry", "timeout"),
        (CLIPS[0].clip_id, "done", ""),
        (CLIPS[1].clip_id, "blocked", "bot-check"),
    ]
    assert ledger.rows([CLIPS[1]])[0].state == "pending"


def test_a_class_is_tried_again_from_its_first_attempt(ledger):
    _put(ledger, 0, state="geo", attempts=3)
    _put(ledger, 1, state="invalid", attempts=1)
    assert ledger.retry("geo") == 1
    states = [(row.state, row.attempts) for row in ledger.rows(CLIPS[:2])]
    assert states == [("pending", 0), ("invalid", 1)]


@pytest.mark.parametrize("state", ["done", "pending", "blocked", "geo; DROP TABLE clip"])
def test_only_classes_that_can_be_tried_again_are_taken(ledger, state):
    with pytest.raises(PipelineError, match="invalid, unconfirmed, geo, credentials, retry"):
        ledger.retry(state)


def test_two_ledgers_are_joined_by_what_each_knows_better(ledger, tmp_path):
    _put(ledger, 0, state="done", last_try=1.0)
    _put(ledger, 1, state="retry", last_try=1.0)
    _put(ledger, 2, state="geo", last_try=9.0)
    _put(ledger, 3, state="invalid", last_try=1.0)
    other = tmp_path / "other.sqlite"
    extra = Clip("only-theirs_000001", "only-theirs", 1)
    with Ledger(other) as theirs:
        theirs.add([*CLIPS, extra], clip_length_s=10.0)
        _put(theirs, 0, state="invalid", last_try=5.0)
        _put(theirs, 1, state="done", last_try=5.0)
        _put(theirs, 2, state="invalid", last_try=5.0)
        _put(theirs, 3, state="geo", last_try=5.0)
    assert ledger.merge(other) == 3
    assert [row.state for row in ledger.rows([*CLIPS[:4], extra])] == [
        "done",
        "done",
        "geo",
        "geo",
        "pending",
    ]


def test_a_file_that_is_no_ledger_is_refused(tmp_path):
    (tmp_path / "ledger.sqlite").write_bytes(b"not a data base" * 100)
    with pytest.raises(PipelineError, match="is not a ledger"):
        Ledger(tmp_path / "ledger.sqlite")


def test_a_ledger_of_a_newer_program_is_left_alone(tmp_path):
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(PipelineError, match="schema 99"):
        Ledger(tmp_path / "ledger.sqlite")


def test_a_ledger_to_merge_must_exist(ledger, tmp_path):
    with pytest.raises(PipelineError, match="no such ledger"):
        ledger.merge(tmp_path / "nothing.sqlite")


def test_more_clips_than_one_query_takes_are_found(ledger):
    many = [Clip(f"{n:011d}_000001", f"{n:011d}", 1) for n in range(2500)]
    ledger.add(many, clip_length_s=10.0)
    assert [row.clip for row in ledger.rows(many)] == many
    assert len(ledger.rows()) == 2506


def test_the_videos_served_last_come_first(ledger):
    _put(ledger, 0, state="done", source="youtube", last_try=1.0)
    _put(ledger, 1, state="done", source="youtube", last_try=3.0)
    _put(ledger, 2, state="done", source="folder", last_try=4.0)
    _put(ledger, 3, state="invalid", source="youtube", last_try=5.0)
    assert ledger.last_done_videos("youtube", 3) == [CLIPS[1].video_id, CLIPS[0].video_id]
