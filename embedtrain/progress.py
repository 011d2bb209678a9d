"""What a person sees while waiting: messages, and how far the work is. Standard output is for results."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

VERBOSITY = "EMBEDTRAIN_VERBOSITY"
"""Environment variable, so that processes that this one starts know it: quiet or verbose."""
LINE_SECONDS = 10.0
LINE_RATIO = 0.02
"""A log gets a line every 10 seconds, later every 2 % of the time gone: some 200 in ten hours."""
BAR_SECONDS = 0.5


def is_quiet() -> bool:
    """Whether only results and errors are wanted."""
    return os.environ.get(VERBOSITY) == "quiet"


def is_verbose() -> bool:
    """Whether more is wanted than usual."""
    return os.environ.get(VERBOSITY) == "verbose"


class Console:
    """Standard error, for messages."""

    @property
    def is_terminal(self) -> bool:
        """Whether somebody watches, who wants bars and not lines."""
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def print(self, message: str) -> None:
        """Write a line, unless the user wants quiet."""
        if not is_quiet():
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()


console = Console()
_displays: "list[Progress]" = []
"""The display of bars, while there is one: a bar inside a bar joins it."""


class Meter:
    """Counts what is done and, when it is time, shows it.

    Args:
        done: What was done before.
        show: Given the number done, items per second lately, and the note.
        wait: From the seconds gone so far, how long until the next time.
    """

    def __init__(
        self,
        done: int,
        show: Callable[[int, float, str], None],
        wait: Callable[[float], float],
    ) -> None:
        self.done = self._before = done
        self._show, self._wait = show, wait
        self._start = self._last = time.monotonic()

    def __call__(self, done: int, note: str = "") -> None:
        """Count so many more as done; the note, such as a loss, is shown beside them."""
        self.done += done
        now = time.monotonic()
        gone = now - self._last
        if gone >= self._wait(self._last - self._start):
            self._show(self.done, (self.done - self._before) / gone, note)
            self._last, self._before = now, self.done


@contextmanager
def progress_bar(
    title: str, total: int | None, *, unit: str = "", done: int = 0, announced: bool = False
) -> Iterator[Callable[..., None]]:
    """Show how far a piece of work is: a bar on a terminal, else a line every so often.

    Args:
        title: What is being done.
        total: Items in all, where that is known.
        unit: What the items are, where the title does not say it.
        done: Items that were done before.
        announced: Whether a log has the beginning already.

    Yields:
        A function to be called with the number of items just done and, if there is one, a note of what else
        is to be shown.
    """
    if is_quiet():
        yield lambda *_: None
    elif console.is_terminal:
        with _bar(title, total, unit, done) as meter:
            yield meter
    else:
        if not announced:
            console.print(title if total is None else f"{title} ({total:,})")

        def show(done: int, rate: float, note: str) -> None:
            console.print(f"{title}: {describe_progress(done, total, unit, rate, note)}")

        yield Meter(done, show, lambda gone: max(LINE_SECONDS, LINE_RATIO * gone))


def describe_progress(done: int, total: int | None, unit: str, rate: float, note: str) -> str:
    """Say how far work is, how fast it goes and how long it will take."""
    amount = f"{done:,}" if total is None else f"{done:,} of {total:,}"
    parts = [f"{amount}{unit and f' {unit}'}", _speed(rate)]
    if total:
        parts[0] += f" ({done / total:.0%})"
        left = timedelta(seconds=round((total - done) / rate)) if rate > 0 else "?"
        parts.append(f"{left} left")
    return ", ".join([*parts, note] if note else parts)


def _speed(rate: float) -> str:
    return f"{rate:,.1f}/s" if rate >= 1 or rate <= 0 else f"{1 / rate:.1f} s each"


@contextmanager
def _bar(title: str, total: int | None, unit: str, done: int) -> Iterator[Meter]:
    from rich.console import Console as RichConsole
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    with ExitStack() as stack:
        if not _displays:
            end = TextColumn("{task.fields[unit]}"), TimeLeft(), TextColumn("{task.fields[note]}")
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *end)
            shown = Progress(*columns, console=RichConsole(stderr=True), transient=True)
            _displays.append(stack.enter_context(shown))
            stack.callback(_displays.clear)
        display = _displays[0]
        task = display.add_task(escape(title), total=total, completed=done, unit=unit, note="")
        stack.callback(display.remove_task, task)

        def show(done: int, rate: float, note: str) -> None:
            both = ", ".join(part for part in (_speed(rate), note) if part)
            display.update(task, completed=done, note=both)

        yield Meter(done, show, lambda _: BAR_SECONDS)
