"""The budget of videos an hour, and the breaker that stops all workers."""

import threading
import time

from storage.fetch.failures import Failure
from storage.fetch.gate import Breaker, Pace

BOT_CHECK = Failure("blocked", "bot-check", "Sign in to confirm you're not a bot")
NEVER = threading.Event()


def _seconds(action) -> float:
    began_s = time.monotonic()
    action()
    return time.monotonic() - began_s


def test_without_a_budget_nobody_waits():
    pace = Pace(None)
    assert _seconds(lambda: [pace.wait(NEVER) for _ in range(1000)]) < 2
    assert pace.eta_s(38_000) is None


def test_the_budget_spaces_videos_over_all_workers():
    """36,000 an hour are one each 100 ms; ten gaps of 70 to 130 ms lie between eleven videos."""
    pace = Pace(36_000)
    workers = [threading.Thread(target=pace.wait, args=(NEVER,)) for _ in range(11)]

    def all_of_them() -> None:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    assert 0.7 <= _seconds(all_of_them) <= 5.0


def test_38000_clips_at_240_an_hour_take_6_6_days():
    eta_s = Pace(240).eta_s(38_000)
    assert eta_s is not None
    assert round(eta_s / 86_400, 1) == 6.6


def test_a_stop_ends_the_wait():
    pace, stop = Pace(1), threading.Event()
    pace.wait(stop)
    stop.set()
    assert _seconds(lambda: pace.wait(stop)) < 1


def test_a_refusal_makes_everybody_wait():
    breaker = Breaker([0.2])
    breaker.trip(BOT_CHECK, admitted_s=breaker.admit(NEVER))
    admitted: list[float] = []
    began_s = time.monotonic()

    def worker() -> None:
        admitted.append(breaker.admit(NEVER) - began_s)

    threads = [threading.Thread(target=worker) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert len(admitted) == 3
    assert min(admitted) >= 0.19


def test_refusals_that_were_under_way_count_as_one():
    waits_s: list[float] = []
    breaker = Breaker([60.0, 90.0], on_pause=lambda _, s: waits_s.append(s))
    first, second = breaker.admit(NEVER), breaker.admit(NEVER)
    breaker.trip(BOT_CHECK, admitted_s=first)
    breaker.trip(BOT_CHECK, admitted_s=second)
    assert waits_s == [60.0]


def test_an_answer_to_a_request_from_before_the_refusal_does_not_end_the_pause():
    breaker = Breaker([0.3])
    first, second = breaker.admit(NEVER), breaker.admit(NEVER)
    breaker.trip(BOT_CHECK, admitted_s=first)
    tripped_s = time.monotonic()
    breaker.close(admitted_s=second)
    assert breaker.admit(NEVER) - tripped_s > 0.25


def test_a_pause_is_told_with_its_reason_and_its_length():
    told: list[tuple[str, float]] = []
    breaker = Breaker([0.5], on_pause=lambda failure, s: told.append((failure.reason, s)))
    breaker.trip(BOT_CHECK, admitted_s=breaker.admit(NEVER))
    assert told == [("bot-check", 0.5)]


def test_when_all_waits_are_used_up_the_run_is_over():
    breaker = Breaker([0.01, 0.01])
    trips = [breaker.trip(BOT_CHECK, admitted_s=breaker.admit(NEVER)) for _ in range(3)]
    assert trips == [True, True, False]


def test_a_success_begins_the_waits_anew():
    breaker = Breaker([0.01])
    for _ in range(3):
        assert breaker.trip(BOT_CHECK, admitted_s=breaker.admit(NEVER))
        breaker.close(admitted_s=breaker.admit(NEVER))


def _pause_s(waits_s: list[float], refusal: Failure) -> float:
    told_s: list[float] = []
    breaker = Breaker(waits_s, on_pause=lambda _, s: told_s.append(s))
    breaker.trip(refusal, admitted_s=breaker.admit(NEVER))
    return told_s[0]


def test_what_the_server_asks_for_is_waited():
    asked = Failure("blocked", "http-429", "Too Many Requests", 429, retry_after_s=60.0)
    assert _pause_s([0.01], asked) == 60


def test_a_rate_limit_is_waited_for_longer_than_an_hour():
    limit = Failure("blocked", "rate-limit", "rate-limited by YouTube for up to an hour")
    assert 3600 < _pause_s([1800.0, 7200.0], limit) < 4200


def test_a_stop_ends_the_pause():
    breaker, stop = Breaker([60.0]), threading.Event()
    breaker.trip(BOT_CHECK, admitted_s=breaker.admit(NEVER))
    threading.Timer(0.1, stop.set).start()
    assert _seconds(lambda: breaker.admit(stop)) < 5
