"""Progress in a log: a line every so often, that a person and grep can read."""

import re

import pytest

from embedtrain import progress
from embedtrain.progress import describe_progress, progress_bar


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def work(clock, seconds, *, items=1000, note=""):
    with progress_bar("Encoding", items) as advance:
        for _ in range(items):
            clock.now += seconds
            advance(1, note)


def test_short_work_is_one_line(clock, capfd):
    work(clock, 0.001)
    assert capfd.readouterr().err == "Encoding (1,000)\n"


def test_longer_work_says_how_far_it_is(clock, capfd):
    work(clock, 0.05, note="loss 0.25")
    title, *lines = capfd.readouterr().err.splitlines()
    assert title == "Encoding (1,000)"
    assert 4 <= len(lines) <= 5
    assert re.fullmatch(
        r"Encoding: 20\d of 1,000 \(20%\), 20\.0/s, 0:00:40 left, loss 0\.25", lines[0]
    )
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", "\n".join(lines)), "no control characters"


def test_ten_hours_are_some_hundred_lines(clock, capfd):
    work(clock, 3.6, items=10_000)
    assert 150 < len(capfd.readouterr().err.splitlines()) < 350


def test_the_rate_is_that_of_late(clock, capfd):
    with progress_bar("Training", 100, unit="steps", done=50, announced=True) as advance:
        for _ in range(10):
            clock.now += 5
            advance(1)
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "Training: 52 of 100 steps (52%), 5.0 s each, 0:04:00 left", "50 came before"
    assert len(lines) == 5


def test_what_is_not_known_is_not_said():
    assert describe_progress(5, None, "", 2.0, "") == "5, 2.0/s"
    assert describe_progress(0, 10, "steps", 0.0, "") == "0 of 10 steps (0%), 0.0/s, ? left"


def test_quiet_says_nothing(clock, capfd, monkeypatch):
    monkeypatch.setenv(progress.VERBOSITY, "quiet")
    work(clock, 1.0)
    assert capfd.readouterr() == ("", "")


def test_a_terminal_gets_bars_and_a_bar_inside_a_bar_joins_the_display(capfd, monkeypatch):
    monkeypatch.setattr(progress.Console, "is_terminal", True)
    monkeypatch.setattr(progress, "BAR_SECONDS", 0.0)
    shown = progress._displays
    with progress_bar("Training", 2, unit="steps") as step:
        step(1, "loss 0.5")
        with progress_bar("Mining", 3) as advance:
            advance(2)
            assert [task.description for task in shown[0].tasks] == ["Training", "Mining"]
        assert [task.completed for task in shown[0].tasks] == [1]
        assert "loss 0.5" in shown[0].tasks[0].fields["note"]
    assert not shown
    assert "(2)" not in capfd.readouterr().err, "no lines of a log"
