"""Signals that ask this process to end: SIGINT (Ctrl-C), SIGTERM, and SIGUSR1, a scheduler's warning.

The first one ends work where it is, by an exception; inside of :func:`deferring` the block looks for it at its next
good place. A second one ends it at once. A thread hears them, because the main thread, which Python lets handle
signals, may be in a backward pass for minutes.
"""

import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeVar

from embedtrain.errors import EXIT_CODES, Interrupted, StoppedAtOnce

ECHO_SECONDS = 0.5
"""A signal this soon after another one is the same: schedulers signal a process and those that pass signals on to it."""
SECONDS_TO_ANSWER = 0.8
"""For the main thread to end at a first signal before a line says that it has been heard."""
SECONDS_TO_END = 3.0
"""For the main thread to end at a second one before the process is ended from outside of it."""
SAME_COMMAND = "the same command goes on with what is done"
WAKE = signal.SIGURG
"""Which nobody else uses: it lets the main thread, also where it waits, run its handler."""
WAKE_SECONDS = 0.02
AGAIN = "; again to stop at once"
Heard = Callable[[int], None]
T = TypeVar("T")


class _Ear:
    """Hears signals from now on.

    Args:
        owns_process: Whether a second signal may end the process, also where the main thread does not react.
    """

    def __init__(self, *, owns_process: bool) -> None:
        self.number = 0
        """The first signal; 0 before there was any."""
        self.second = 0
        self.deferred: list[Heard] = []
        self.is_left = False
        """Whether what is done now is left at the first signal, deferred or not."""
        self.told = 0
        """The signal for which the main thread has raised."""
        self._owns_process = owns_process
        self._raised = 0
        """The signal for which the main thread is to raise."""
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._main = threading.get_ident()
        numbers = [*EXIT_CODES, WAKE]
        self._handlers = {number: signal.signal(number, self._raise) for number in numbers}
        self._descriptor = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Give the signals back."""
        signal.set_wakeup_fd(self._descriptor)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._write)  # ends the thread

    def _listen(self) -> None:
        last, deadline = -ECHO_SECONDS, math.inf
        while True:
            if not self._wait(deadline):
                deadline = math.inf
                self._lose_patience()
                continue
            numbers = os.read(self._read, 1)
            if not numbers:
                break
            now = time.monotonic()
            if numbers[0] in EXIT_CODES and now - last >= ECHO_SECONDS:
                last = now
                deadline = now + self._hear(numbers[0])
        os.close(self._read)

    def _wait(self, deadline: float) -> bool:
        """Wait for the next signal, at most until then; meanwhile wake the main thread until it is awake.

        A wait that it was just about to begin would not be ended by waking it once.
        """
        while (left := deadline - time.monotonic()) > 0:
            if self._raised:
                signal.pthread_kill(self._main, WAKE)
                time.sleep(WAKE_SECONDS)
                left = min(left, WAKE_SECONDS)
            if select.select([self._read], [], [], None if left == math.inf else left)[0]:
                return True
        return False

    def _hear(self, number: int) -> float:
        """Act on a signal; return the seconds in which the main thread is to end."""
        if self.number:
            self.second = number
            self._raised = number
            return SECONDS_TO_END
        self.number = number
        if self.deferred:
            self.deferred[-1](number)
        if self.is_left or not self.deferred:
            self._raised = number
        return math.inf if self.deferred else SECONDS_TO_ANSWER

    def _lose_patience(self) -> None:
        if not self.second:
            tell("stopping" + AGAIN)
        elif self._owns_process:
            tell(str(StoppedAtOnce(self.second)))
            os._exit(EXIT_CODES[signal.Signals(self.second)])

    def _raise(self, _: int, __: FrameType | None) -> None:
        number, self._raised = self._raised, 0
        if number:
            self.told = number
            raise StoppedAtOnce(number)


def tell(line: str) -> None:
    """Write a line to standard error past whatever the main thread may be writing."""
    start = "\n" if os.isatty(2) else ""  # below a bar
    with suppress(OSError):
        os.write(2, f"{start}{line}\n".encode())


_ear: _Ear | None = None


@contextmanager
def listening(*, owns_process: bool = False) -> Iterator[None]:
    """Hear signals for the time of the block; a block inside another one, or of another thread, changes nothing.

    Raises:
        Interrupted: In the place of :class:`StoppedAtOnce`, at the end of the block.
    """
    global _ear  # noqa: PLW0603 - a process has one set of handlers
    if _ear is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    ear = _ear = _Ear(owns_process=owns_process)
    try:
        yield
    except StoppedAtOnce as stop:
        raise Interrupted(str(stop), stop.number) from stop
    except Interrupted:
        raise  # what was stopped has said already how to go on with it
    except Exception as error:
        if not ear.told:
            raise
        # Foreign code took what was raised there for a mistake of its own.
        raise Interrupted(str(StoppedAtOnce(ear.told)), ear.told) from error
    finally:
        if _ear is ear:  # else this is a fork
            _ear = None
            ear.close()


@contextmanager
def deferring(heard: Heard) -> Iterator[None]:
    """Go on with the block at the first signal: it finds it by :func:`requested`.

    Args:
        heard: Called with the signal at once, by another thread.

    Raises:
        StoppedAtOnce: At the end of the block, if a signal came and the block raised nothing.
    """
    ear = _ear
    if ear is None:
        yield
        return
    ear.deferred.append(heard)
    try:
        yield
    finally:
        ear.deferred.pop()
    if ear.number:
        raise StoppedAtOnce(ear.number)


def unless_stopped(work: Callable[[], T]) -> T | None:
    """Do what is better left than waited for; None if a signal came before its end, inside of :func:`deferring`."""
    ear = _ear
    if ear is None:
        return work()
    if ear.number:
        return None
    ear.is_left = True
    try:
        return work()
    except StoppedAtOnce:
        if ear.second:
            raise
        return None
    finally:
        ear.is_left = False


def requested() -> int:
    """Return the signal that has asked for an end; 0 if none did."""
    return 0 if _ear is None else _ear.number


@contextmanager
def going_on(way: str) -> Iterator[None]:
    """Say how to go on with what a signal ends in the block.

    Raises:
        Interrupted: In the place of :class:`StoppedAtOnce`, and of one that said less.
    """
    try:
        yield
    except StoppedAtOnce as stop:
        raise Interrupted(str(stop), stop.number, way) from stop
    except Interrupted as stop:
        raise Interrupted(stop.what, stop.number, way) from stop


def _hold() -> None:
    """Hold signals back while this process forks: the fork's would be heard here."""
    if _ear is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, EXIT_CODES)


def _let_go() -> None:
    if _ear is not None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, EXIT_CODES)


def _forget() -> None:
    """Let a fork begin as a process that hears nothing: the thread is not in it."""
    global _ear  # noqa: PLW0603
    if _ear is not None:
        signal.set_wakeup_fd(-1)
        for number in EXIT_CODES:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
        _let_go()
        _ear = None


os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_forget)
