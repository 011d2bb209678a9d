"""Work beside that of the device: a thread prepares what comes next, another writes what is done.

Where the CPU itself computes there is nothing to overlap with, so all may be done in the caller's own thread.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], *, threaded: bool
) -> Iterator[Result]:
    """Yield ``work(item)`` of each item in order; a thread reads and does the next one meanwhile.

    An error comes where its result would have come.
    """
    results = map(work, items)
    if not threaded:
        yield from results
        return
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(_next, results)
        while found := coming.result():
            coming = thread.submit(_next, results)
            yield found[0]


def _next(results: Iterator[Result]) -> tuple[Result] | None:
    return next(((result,) for result in results), None)


def one_late(items: Iterable[Item], *, late: bool) -> Iterator[Item]:
    """Yield items in order; if ``late``, each only when the one after it has been made."""
    source = iter(items)
    kept = list(islice(source, int(late)))
    for item in source:
        kept.append(item)
        yield kept.pop(0)
    yield from kept


@contextmanager
def behind(*, threaded: bool) -> Iterator[Callable[[Callable[[], object]], None]]:
    """Yield what takes work to be done later, in order, by a thread; one piece waits at most.

    An error comes with the next piece, or at the end of the block.
    """
    if not threaded:
        yield _now
        return
    last: list[Future[object]] = []
    with ThreadPoolExecutor(1) as thread:

        def later(work: Callable[[], object]) -> None:
            if last:
                last.pop().result()
            last.append(thread.submit(work))

        yield later
        if last:
            last.pop().result()


def _now(work: Callable[[], object]) -> None:
    work()
