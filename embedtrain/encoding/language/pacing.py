"""How fast requests go to an address: one limit and one clock for all workers, which the server may pull."""

import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

RAISED_AFTER = 50
"""Requests that go well before one more may be under way."""
LONGEST_ASKED = 600.0
"""Seconds that a server may ask to wait."""
RESETS = ("x-ratelimit-reset-requests", "x-ratelimit-reset-tokens")
PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Throttle:
    """Lets requests go: so many at once, so many a minute, none while the server wants peace.

    A 429 halves what may be under way, and every 50 requests that go well add one: the limit finds what the server
    bears. Of several that it refuses together, one counts.

    Args:
        most: Requests under way at once.
        per_minute: Requests a minute; None does not limit them.
    """

    def __init__(self, most: int, per_minute: int | None) -> None:
        self.most = self.allowed = most
        self.under_way = 0
        self._per_minute = per_minute
        self._good = 0
        self._next = self._peace_until = self._halved_at = 0.0
        self._changed = threading.Condition()

    @contextmanager
    def turn(self) -> Iterator[float]:
        """Wait until a request may go, and count it as under way; yields when it goes, by the monotonic clock."""
        with self._changed:
            self._changed.wait_for(lambda: self.under_way < self.allowed)
            self.under_way += 1
        try:
            self._wait()
            yield time.monotonic()
        finally:
            with self._changed:
                self.under_way -= 1
                self._changed.notify_all()

    def brake(self, seconds: float, went_at: float) -> None:
        """Let no request go for some seconds, and fewer at once from now on.

        Args:
            seconds: That the server asks for; 0 where it does not say.
            went_at: When the refused request went: one that was on its way before the last brake tells nothing new.
        """
        with self._changed:
            now = time.monotonic()
            self._peace_until = max(self._peace_until, now + seconds)
            if went_at >= self._halved_at:
                self.allowed = max(1, self.allowed // 2)
                self._halved_at, self._good = now, 0

    def went_well(self) -> None:
        """Count a request that was answered."""
        with self._changed:
            self._good += 1
            if self._good >= RAISED_AFTER and self.allowed < self.most:
                self.allowed += 1
                self._good = 0
                self._changed.notify_all()

    def _wait(self) -> None:
        """Wait for the rate, and for as long as the server wants peace, also if it says so meanwhile."""
        with self._changed:
            turn = max(self._next, self._peace_until)
            now = time.monotonic()
            if self._per_minute is not None:
                turn = max(turn, now)
                self._next = turn + 60 / self._per_minute
        if self._per_minute is not None or turn > now:
            time.sleep(max(0.0, turn - now))
        while (left := self._peace_until - time.monotonic()) > 0:
            time.sleep(left)


def asked_wait(headers: Mapping[str, str]) -> float:
    """Return the seconds that a server asks to wait, within reason; 0 if it does not.

    ``Retry-After`` holds seconds or a date; else the longer of ``x-ratelimit-reset-requests`` and ``-tokens`` counts.
    """
    said = headers.get("retry-after")
    if said is None:
        found = max(_added_up(headers.get(name, "")) for name in RESETS)
    else:
        try:
            found = float(said)
        except ValueError:
            found = _until(said)
    return (
        min(max(found, 0.0), LONGEST_ASKED) if found == found else 0.0
    )  # NaN is unequal to itself


def _added_up(text: str) -> float:
    """Return the seconds of ``6m0s`` or ``20ms``."""
    return sum((float(number) * SECONDS[unit] for number, unit in PART.findall(text)), 0.0)


def _until(date: str) -> float:
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, IndexError, TypeError):
        return 0.0
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
