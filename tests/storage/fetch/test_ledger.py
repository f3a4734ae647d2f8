"""The ledger: what it keeps, what it gives back, and what it refuses."""

import sqlite3
import threading
from contextlib import closing
from dataclasses import replace

import pytest

from storage.errors import PipelineError
from storage.fetch.failures import Failure
from storage.fetch.ledger import Ledger
from storage.records.clip import Clip

CLIPS = [Clip(f"video_-{n:04d}_000030", f"video_-{n:04d}", 30) for n in range(6)]


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        opened.add(CLIPS)
        yield opened


def _put(ledger: Ledger, index: int, **changes) -> None:
    row = replace(ledger.rows([CLIPS[index]])[0], **changes)
    ledger.write([row], run=1, seconds=0.5)


def test_a_clip_asked_for_again_keeps_its_state(ledger):
    _put(ledger, 0, state="done", attempts=2, sha256="ab", silent=True)
    ledger.add(CLIPS)
    row = ledger.rows([CLIPS[0]])[0]
    assert (row.state, row.attempts, row.sha256, row.silent, row.short) == (
        "done",
        2,
        "ab",
        True,
        False,
    )


def test_a_clip_of_another_length_is_another_row(ledger):
    """One row for both: the second experiment's length overwrote the first's wav and state."""
    _put(ledger, 0, state="done")
    _put(ledger, 1, state="invalid", reason_code="private")
    with Ledger(ledger.path, clip_length_s=2.0) as other:
        other.add(CLIPS)
        assert {row.state for row in other.rows()} == {"pending"}
        assert other.retry("invalid") == 0
    assert [row.state for row in ledger.rows(CLIPS[:2])] == ["done", "invalid"]


def test_rows_come_in_the_order_asked_for_and_only_those_known(ledger):
    unknown = Clip("unknown-vid_000001", "unknown-vid", 1)
    rows = ledger.rows([CLIPS[3], unknown, CLIPS[1]])
    assert [row.clip_id for row in rows] == [CLIPS[3].clip_id, CLIPS[1].clip_id]


def test_every_try_is_a_line_that_stays(ledger):
    _put(ledger, 0, state="retry", reason_code="timeout", message="timed out", attempts=1)
    _put(ledger, 0, state="done", reason_code="", message="", attempts=2)
    refusal = Failure("blocked", "bot-check", "Sign in", 403)
    ledger.note_refusal([CLIPS[1]], run=1, failure=refusal)
    with sqlite3.connect(ledger.path) as connection:
        lines = connection.execute("SELECT clip_id, state, reason_code FROM attempt").fetchall()
    assert lines == [
        (CLIPS[0].clip_id, "retry", "timeout"),
        (CLIPS[0].clip_id, "done", ""),
        (CLIPS[1].clip_id, "blocked", "bot-check"),
    ]
    row = ledger.rows([CLIPS[1]])[0]
    assert (row.state, row.reason_code, row.message) == ("pending", "bot-check", "Sign in")


def test_a_class_is_tried_again_from_its_first_attempt(ledger):
    _put(ledger, 0, state="geo", attempts=3)
    _put(ledger, 1, state="invalid", attempts=1)
    assert ledger.retry("geo") == 1
    states = [(row.state, row.attempts) for row in ledger.rows(CLIPS[:2])]
    assert states == [("pending", 0), ("invalid", 1)]


def test_two_ledgers_are_joined_by_what_each_knows_better(ledger, tmp_path):
    _put(ledger, 0, state="done", last_try=1.0)
    _put(ledger, 1, state="retry", last_try=1.0)
    _put(ledger, 2, state="geo", last_try=9.0)
    _put(ledger, 3, state="invalid", last_try=1.0)
    other = tmp_path / "other.sqlite"
    extra = Clip("only-theirs_000001", "only-theirs", 1)
    with Ledger(other) as theirs:
        theirs.add([*CLIPS, extra])
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


@pytest.mark.parametrize("found", [1, 99])
def test_a_ledger_of_another_format_is_refused_in_one_line_and_left_alone(tmp_path, found):
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE clip (clip_id TEXT PRIMARY KEY)")
        connection.execute(f"PRAGMA user_version={found}")
    before = path.read_bytes()
    with pytest.raises(PipelineError, match=f"format {found}.*move it away") as caught:
        Ledger(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["ledger.sqlite"]


def test_a_locked_ledger_is_waited_for_and_then_named_as_locked(ledger, monkeypatch):
    """It was called "not a ledger, move it away"."""
    with closing(sqlite3.connect(ledger.path, check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        timer = threading.Timer(0.5, other.rollback)
        timer.start()
        _put(ledger, 0, state="done")
        timer.join()
        monkeypatch.setattr("storage.fetch.ledger.BUSY_WAIT_S", 0.1)
        other.execute("BEGIN EXCLUSIVE")
        with (
            Ledger(ledger.path) as second,
            pytest.raises(PipelineError, match="locked by another program"),
        ):
            second.add(CLIPS)
        other.rollback()


def test_a_ledger_that_may_not_be_written_is_named_as_such(ledger):
    ledger.close()
    uri = f"file:{ledger.path}?mode=ro"
    ledger._connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    with pytest.raises(PipelineError, match=r"for writing .*permissions"):
        ledger.add([Clip("unknown-vid_000001", "unknown-vid", 1)])


def test_a_page_that_is_damaged_is_a_message_and_no_traceback(tmp_path):
    path = tmp_path / "ledger.sqlite"
    many = [Clip(f"{n:011d}_000001", f"{n:011d}", 1) for n in range(2000)]
    with Ledger(path) as ledger:
        ledger.add(many)
        ledger._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    content[3 * 4096 :] = b"\xff" * (len(content) - 3 * 4096)
    path.write_bytes(content)
    with (
        pytest.raises(PipelineError, match=r"is damaged .*restore it from a copy"),
        Ledger(path) as ledger,
    ):
        ledger.rows()


def test_a_run_that_was_killed_does_not_run_for_ever(ledger):
    first = ledger.begin_run(config="{}", versions={})
    _put(ledger, 0, state="done")
    second = ledger.begin_run(config="{}", versions={})
    rows = ledger._read("SELECT run, outcome, finished FROM run")
    ((last_attempt,),) = ledger._read("SELECT max(at) FROM attempt")
    assert rows == [(first, "killed", last_attempt), (second, "running", None)]


def test_what_a_run_lost_since_its_last_success_is_taken_back(ledger):
    _put(ledger, 0, state="invalid", reason_code="private", attempts=1)
    _put(ledger, 1, state="done", source="youtube")
    _put(ledger, 2, state="invalid", reason_code="no-audio", attempts=1)
    _put(ledger, 3, state="unconfirmed", reason_code="unavailable", attempts=1)
    assert ledger.losses(1) == {"private": 1, "no-audio": 1}
    assert ledger.take_back(1, ("invalid", "unconfirmed"), next_try=7.0) == 2
    states = [(row.state, row.attempts, row.next_try) for row in ledger.rows(CLIPS[:4])]
    assert states[0] == ("invalid", 1, None)
    assert states[2:] == [("retry", 0, 7.0)] * 2
    assert ledger.losses(1) == {"private": 1}


def test_more_clips_than_one_query_takes_are_found(ledger):
    many = [Clip(f"{n:011d}_000001", f"{n:011d}", 1) for n in range(2500)]
    ledger.add(many)
    assert [row.clip for row in ledger.rows(many)] == many
    assert len(ledger.rows()) == 2506


def test_the_videos_served_last_come_first(ledger):
    _put(ledger, 0, state="done", source="youtube", last_try=1.0)
    _put(ledger, 1, state="done", source="youtube", last_try=3.0)
    _put(ledger, 2, state="done", source="folder", last_try=4.0)
    _put(ledger, 3, state="invalid", source="youtube", last_try=5.0)
    assert ledger.last_done_videos("youtube", 3) == [CLIPS[1].video_id, CLIPS[0].video_id]
