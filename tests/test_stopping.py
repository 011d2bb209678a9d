"""Signals are heard whatever the main thread does, and end work where it is or where it says."""

import ctypes
import os
import signal
import time
from threading import Timer

import pytest
from forks import fork

from embedtrain import stopping
from embedtrain.errors import EXIT_CODES, Interrupted, StoppedAtOnce
from embedtrain.stopping import (
    ECHO_SECONDS,
    SECONDS_TO_ANSWER,
    deferring,
    going_on,
    listening,
    requested,
    unless_stopped,
)


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def wait_until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 75)]
)
def test_a_signal_ends_work_where_it_is_and_the_exit_code_says_which(number, code):
    def work():
        with listening():
            send(number)
            time.sleep(10)

    with pytest.raises(Interrupted, match=f"^stopped by {number.name}$") as caught:
        work()
    assert caught.value.exit_code == code


def test_a_deferring_block_goes_on_and_finds_the_signal():
    heard, found = [], []

    def work():
        with listening():
            with deferring(heard.append):
                found.append(requested())
                send()
                wait_until(lambda: heard)
                found.append(requested())
            found.append("what nobody asked for is not lost")

    with pytest.raises(Interrupted):
        work()
    assert found == [0, signal.SIGTERM]
    assert heard == [signal.SIGTERM]


def test_what_signals_did_before_is_what_they_do_after():
    before = [signal.getsignal(number) for number in EXIT_CODES]
    with listening(), listening():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(number) for number in EXIT_CODES] == before
    assert requested() == 0


def test_a_second_signal_ends_a_deferring_block_but_no_echo_of_the_first():
    heard = []

    def work():
        with listening(), deferring(heard.append):
            send(signal.SIGTERM)
            send(signal.SIGTERM)
            wait_until(lambda: heard)
            time.sleep(ECHO_SECONDS)
            send(signal.SIGINT)
            time.sleep(10)

    with pytest.raises(Interrupted, match="stopped by SIGINT"):
        work()
    assert heard == [signal.SIGTERM]


def test_what_is_better_left_is_left_at_the_first_signal_and_the_rest_goes_on():
    found = []

    def work():
        with listening(), deferring(lambda _: None):
            found.append(unless_stopped(lambda: 7))
            found.append(unless_stopped(lambda: (send(), time.sleep(10))))
            found.append(requested())
            found.append(unless_stopped(lambda: 8))

    with pytest.raises(Interrupted):
        work()
    assert found == [7, None, signal.SIGTERM, None]


def test_the_outermost_says_how_to_go_on():
    def work():
        with going_on("resume the whole"), going_on("resume the part"):
            raise Interrupted("stopped at step 3", signal.SIGTERM)

    with pytest.raises(Interrupted, match=r"^stopped at step 3; resume the whole$") as caught:
        work()
    assert caught.value.exit_code == 143


def deaf(seconds: float) -> None:
    """Stay in C, where Python runs no handler, as in a long backward pass; other threads run."""
    poll = ctypes.CDLL(None).poll
    poll.argtypes = (ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int)
    signal.pthread_sigmask(signal.SIG_BLOCK, [*EXIT_CODES, stopping.WAKE])
    poll(None, 0, int(seconds * 1000))


def test_a_deaf_main_thread_keeps_no_signal_from_being_heard(monkeypatch):
    monkeypatch.setattr(stopping, "SECONDS_TO_END", 0.2)

    def work():
        with listening(owns_process=True):
            Timer(0.1, send).start()  # other threads take the signal
            Timer(0.2 + SECONDS_TO_ANSWER, send).start()
            deaf(60)

    began = time.monotonic()
    done = fork(work)
    assert done.returncode == 143
    assert done.stderr.splitlines() == ["stopping; again to stop at once", "stopped by SIGTERM"]
    assert time.monotonic() - began < 30


def test_a_fork_hears_for_itself():
    codes = []

    def work():
        with listening():
            child = os.fork()
            if child == 0:
                time.sleep(10)
                os._exit(0)
            os.kill(child, signal.SIGTERM)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            codes.append(requested())

    work()
    assert codes == [-signal.SIGTERM, 0]


def test_what_foreign_code_makes_of_a_signal_is_the_signal_still():
    """matplotlib's converters, for one, say ValueError."""

    def foreign() -> None:
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            raise ValueError("Invalid affine transformation matrix") from None

    Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(Interrupted) as stopped, listening():
        foreign()
    assert stopped.value.exit_code == EXIT_CODES[signal.SIGINT]
    with pytest.raises(ValueError, match="ours"), listening():
        raise ValueError("ours")


def test_what_says_how_to_go_on_is_left_as_it_is():
    def own() -> None:
        try:
            while True:
                time.sleep(0.01)
        except StoppedAtOnce as stop:
            raise Interrupted("stopped; go on with x", stop.number) from stop

    Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(Interrupted, match="go on with"), listening():
        own()
