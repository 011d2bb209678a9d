"""Rows that a function of the user's yields: a source named as ``package.module:function``."""

import hashlib
import json
from collections.abc import Iterable, Iterator

from embedtrain.data.examples import Example, Source, SourceConfig, fingerprint_of
from embedtrain.data.readers.rows import Row, RowReader
from embedtrain.errors import UserError
from embedtrain.plugins import find_reference, load_plugin


def is_function(path: str) -> bool:
    """Whether a path is the name of a function; nothing is imported."""
    return "/" not in path and find_reference(path, "embedtrain.sources") is not None


def open_function(config: SourceConfig) -> Source:
    """Open what ``function(split)`` yields: dicts, as the lines of a JSON Lines file, the same at every call."""
    read = RowReader(config.columns, score_range=config.score_range).read

    def stream() -> Iterator[Example]:
        for place, row in function_rows(config.path, config.split):
            yield read(row, place)

    content = hash_rows(config.path, config.split)
    return Source(config, config.path, fingerprint_of(config, content), stream)


def hash_rows(path: str, split: str) -> str:
    """Hash all that a function yields: nothing else tells whether it still yields the same."""
    total = hashlib.sha256()
    for _, row in function_rows(path, split):
        total.update(json.dumps(row, default=repr).encode())
    return total.hexdigest()


def function_rows(path: str, split: str) -> Iterator[tuple[str, Row]]:
    """Call a function and yield (place, row).

    Raises:
        UserError: If it cannot be imported, or yields no dicts.
    """
    function = load_plugin(path, "embedtrain.sources")
    rows = function(split) if callable(function) else None
    if not isinstance(rows, Iterable):
        cure = "Name a function that takes the split and yields dicts"
        raise UserError(path, "gives no rows", got=rows, cure=cure)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise UserError(f"{path} row {number}", "is no dict", got=row, cure="Yield dicts")
        yield f"{path} row {number}", row
