"""Rows of a whole document: its chunks, and queries that each name the chunk that answers them.

``{"chunks": ["...", ...], "queries": [{"text": "...", "chunk": 0}, ...]}``. ``chunk`` may be a list: the first
answers the query, and the others do so too. Each query becomes an example whose documents are the chunks, each marked
within the whole document, and all examples of a row share them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from embedtrain.contract.context import put_together
from embedtrain.contract.spans import mark
from embedtrain.data.examples import Example
from embedtrain.errors import UserError

CHUNKS, QUERIES = "chunks", "queries"


def is_chunk_row(row: Mapping[str, object]) -> bool:
    """Whether a row is a document of chunks with its queries."""
    return CHUNKS in row and QUERIES in row


def chunk_examples(row: Mapping[str, object], place: str) -> Iterator[Example]:
    """Yield an example for each query of a row.

    Raises:
        UserError: If chunks are no texts, or a query names none of them.
    """
    chunks = _texts(row[CHUNKS], f"{place} {CHUNKS}")
    contexts = put_together(chunks)
    marked = [mark(whole, list(span), f"{place} {CHUNKS}") for whole, span in contexts]
    queries = row[QUERIES]
    if not isinstance(queries, list) or not queries:
        cure = 'Write [{"text": ..., "chunk": 0}]'
        raise UserError(f"{place} {QUERIES}", "must be a list", got=queries, cure=cure)
    for number, query in enumerate(queries):
        where = f"{place} {QUERIES} {number}"
        text, answers = _query(query, len(chunks), where)
        yield Example(
            query=text,
            positives=tuple(marked[answer] for answer in answers),
            negatives=tuple(one for n, one in enumerate(marked) if n not in answers),
            document=contexts[0][0],
        )


def _texts(given: object, place: str) -> list[str]:
    listed = given if isinstance(given, list) else []
    if not listed or not all(isinstance(one, str) and one.strip() for one in listed):
        raise UserError(place, "must be a list of texts", got=given, cure="Drop empty ones")
    return listed


def _query(given: object, num_chunks: int, place: str) -> tuple[str, list[int]]:
    """Return the text of a query and the chunks that answer it."""
    text, chunk = (given.get("text"), given.get("chunk")) if isinstance(given, dict) else (0, 0)
    answers: list[Any] = chunk if isinstance(chunk, list) else [chunk]
    if not isinstance(text, str) or not text.strip():
        raise UserError(place, "has no text", got=given, cure='Write {"text": ..., "chunk": 0}')
    if not answers or not all(type(one) is int and 0 <= one < num_chunks for one in answers):
        cure = "Give its place in the list, counted from 0"
        raise UserError(place, f"names none of the {num_chunks} chunks", got=chunk, cure=cure)
    return text, answers
