"""Rows that a function of the user's yields: a source named as ``package.module:function``."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from inspect import signature

from embedtrain.data.examples import Example, Source, SourceConfig, fingerprint_of
from embedtrain.data.readers.rows import Row, RowReader
from embedtrain.errors import UserError
from embedtrain.plugins import find_reference, load_plugin

CURE = "Name a function that takes the split and yields dicts"


def is_function(path: str) -> bool:
    """Whether a path is the name of a function; nothing is imported."""
    return "/" not in path and find_reference(path, "embedtrain.sources") is not None


def open_function(config: SourceConfig) -> Source:
    """Open what ``function(split)`` yields: dicts, as the lines of a JSON Lines file, the same at every call."""
    reader = RowReader(config.columns, score_range=config.score_range)

    def stream() -> Iterator[Example]:
        for place, row in function_rows(config.path, config.split):
            yield from reader.examples(row, place)

    content = hash_rows(config.path, config.split)
    return Source(config, config.path, fingerprint_of(config, content), stream)


def hash_rows(path: str, split: str) -> str:
    """Hash all that a function yields: nothing else tells whether it still yields the same."""
    total = hashlib.sha256()
    for _, row in function_rows(path, split):
        total.update(json.dumps(row, default=repr).encode())
    return total.hexdigest()


def find_function(path: str) -> Callable[[str], object]:
    """Import the function of a source without calling it.

    Raises:
        UserError: If it cannot be imported, is no function, or takes anything but the name of a split.
    """
    function = load_plugin(path, "embedtrain.sources")
    if not callable(function):
        raise UserError(path, "gives no rows", got=function, cure=CURE)
    try:
        form = signature(function)
    except ValueError:  # some written in C say nothing of what they take
        return function
    try:
        form.bind("train")
    except TypeError:
        problem = "does not take the split as its one argument"
        raise UserError(path, problem, got=str(form), cure=CURE) from None
    return function


def function_rows(path: str, split: str) -> Iterator[tuple[str, Row]]:
    """Call a function and yield (place, row).

    Raises:
        UserError: If it cannot be imported, or yields no dicts.
    """
    rows = find_function(path)(split)
    if not isinstance(rows, Iterable):
        raise UserError(path, "gives no rows", got=rows, cure=CURE)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise UserError(f"{path} row {number}", "is no dict", got=row, cure="Yield dicts")
        yield f"{path} row {number}", row
