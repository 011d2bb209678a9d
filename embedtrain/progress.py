"""What a person sees while waiting: one console, one kind of progress bar."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(stderr=True, highlight=False, markup=False)
"""Messages and bars go to standard error: standard output is for results."""


@contextmanager
def progress_bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar and yield a function to be called with the number of items just done.

    Without a terminal no bar is drawn, only the title is printed, so that logs stay readable.
    """
    if not console.is_terminal:
        console.print(title if total is None else f"{title} ({total:,})")
        yield lambda _: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(escape(title), total=total)
        yield lambda done: bars.advance(task, done)
