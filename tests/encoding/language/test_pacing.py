"""The pace of requests: what a server says is heard, and its limit is found."""

import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from embedtrain.encoding.language import pacing
from embedtrain.encoding.language.pacing import Throttle, asked_wait


@pytest.fixture
def clock(monkeypatch):
    """A clock that only sleeping moves."""
    now = [100.0]
    monkeypatch.setattr(pacing.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(pacing.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"retry-after": "2"}, 2),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "nan"}, 0),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": "86400"}, pacing.LONGEST_ASKED),
        ({"retry-after": "Wed, 01 Jan 2020 00:00:00 GMT"}, 0),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "1m2.5s"}, 62.5),
        ({"x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-reset-tokens": "a while"}, 0),
    ],
)
def test_the_wait_is_what_the_server_asks_for(headers, seconds):
    assert asked_wait(headers) == pytest.approx(seconds)


def test_a_date_is_so_many_seconds_from_now():
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert asked_wait({"retry-after": date}) == pytest.approx(30, abs=2)


def test_a_refusal_halves_the_limit_and_fifty_good_ones_add_one(clock):
    throttle = Throttle(8, None)
    for halved in (4, 2, 1, 1):
        clock[0] += 1
        throttle.brake(0.0, clock[0])
        assert throttle.allowed == halved
    for _ in range(pacing.RAISED_AFTER * 3):
        throttle.went_well()
    assert throttle.allowed == 4
    for _ in range(pacing.RAISED_AFTER * 9):
        throttle.went_well()
    assert throttle.allowed == 8


def test_requests_that_are_refused_together_count_once(clock):
    throttle = Throttle(8, None)
    for _ in range(5):
        throttle.brake(0.0, clock[0] - 1)
    assert throttle.allowed == 4


def test_no_request_goes_while_the_server_wants_peace(clock):
    throttle = Throttle(8, None)
    throttle.brake(2.0, clock[0])
    with throttle.turn() as went_at:
        assert went_at == pytest.approx(102)


def test_no_more_than_allowed_are_under_way():
    throttle, most, lock = Throttle(3, None), [0, 0], threading.Lock()

    def work():
        for _ in range(20):
            with throttle.turn(), lock:
                most[0] = max(most[0], throttle.under_way)
                most[1] += 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] <= 3
    assert most[1] == 160
    assert throttle.under_way == 0
