"""When a clip is tried again, and when it is given up."""

import pytest

from storage.fetch.clip_rows import after_failure, after_success, is_due
from storage.fetch.cut import WavFacts
from storage.fetch.failures import Failure
from storage.fetch.ledger import ClipRow

ROW = ClipRow("-HG3Omg_89c_000030", "-HG3Omg_89c", 30, 10.0)
WAITS_S = (30.0, 300.0, 3600.0, 86_400.0)
HOUR_S, DAY_S = 3600.0, 86_400.0


def _fail(row: ClipRow, kind, now_s: float) -> ClipRow:
    return after_failure(row, Failure(kind, "why", "text", 503), now_s=now_s, waits_s=WAITS_S)


def test_a_broken_wire_is_tried_later_and_later_and_then_left_unconfirmed():
    row, now_s = ROW, 1000.0
    for wait_s in WAITS_S:
        row = _fail(row, "retry", now_s)
        assert row.state == "retry"
        assert row.next_try is not None
        assert now_s + wait_s / 2 <= row.next_try <= now_s + wait_s
        assert not is_due(row, now_s)
        assert is_due(row, row.next_try)
        now_s = row.next_try
    row = _fail(row, "retry", now_s)
    assert (row.state, row.attempts, row.next_try) == ("unconfirmed", 5, now_s + DAY_S)


def test_an_ambiguous_loss_needs_a_second_one_a_day_later():
    first = _fail(ROW, "unconfirmed", 0.0)
    assert (first.state, first.next_try) == ("unconfirmed", DAY_S)
    early = _fail(first, "unconfirmed", HOUR_S)
    assert early.state == "unconfirmed"
    late = _fail(first, "unconfirmed", DAY_S)
    assert (late.state, late.next_try) == ("invalid", None)


@pytest.mark.parametrize("kind", ["invalid", "geo", "credentials"])
def test_a_clear_answer_is_believed_at_once(kind):
    row = _fail(ROW, kind, 5.0)
    assert (row.state, row.reason_code, row.message, row.http_status) == (kind, "why", "text", 503)
    assert (row.attempts, row.first_try, row.last_try) == (1, 5.0, 5.0)
    assert not is_due(row, 1e12)


def test_a_fault_of_the_extractor_costs_the_clip_no_attempt():
    row = _fail(ROW, "extractor", 0.0)
    assert (row.state, row.attempts, row.next_try) == ("retry", 0, HOUR_S)


@pytest.mark.parametrize("kind", ["blocked", "local"])
def test_what_is_about_the_run_never_touches_a_clip(kind):
    with pytest.raises(ValueError, match="about the run"):
        _fail(ROW, kind, 0.0)


def test_success_wipes_the_reason_and_keeps_the_first_try():
    failed = _fail(ROW, "retry", 100.0)
    facts = WavFacts("ab" * 32, 80_000, -61.0, -70.0)
    versions = {"yt-dlp": "2026.10.26", "ffmpeg": "9"}
    row = after_success(failed, facts, "folder", None, now_s=200.0, versions=versions)
    assert (row.state, row.reason_code, row.next_try, row.http_status) == ("done", "", None, None)
    assert (row.attempts, row.first_try, row.last_try) == (2, 100.0, 200.0)
    assert (row.duration_s, row.short, row.silent) == (5.0, True, True)
