"""Chunks within their documents: a marked text whose span is the chunk, the rest being its context."""

from collections.abc import Sequence
from typing import Any

from embedtrain.contract.spans import mark
from embedtrain.errors import UserError

BETWEEN = "\n"
"""What stands between the chunks of a document that is put together."""
REACH = 8
"""Characters kept on either side of a chunk, at least, for each token that a model reads: few texts have so many."""
Context = tuple[str, tuple[int, int]]
"""A document, and where a chunk stands in it, in characters."""


def put_together(chunks: Sequence[str]) -> list[Context]:
    """Return each chunk of a document within the document that all of them make."""
    document, found, start = BETWEEN.join(chunks), [], 0
    for chunk in chunks:
        found.append((document, (start, start + len(chunk))))
        start += len(chunk) + len(BETWEEN)
    return found


def contexts_of(texts: Sequence[str], owners: Sequence[str | None]) -> list[Context]:
    """Return each text within the document that all texts of its owner make, in their order; None owns none."""
    rows: dict[str, list[int]] = {}
    for row, owner in enumerate(owners):
        if owner is not None and texts[row].strip():
            rows.setdefault(owner, []).append(row)
    found = [(text, (0, len(text))) for text in texts]
    for several in rows.values():
        together = put_together([texts[row] for row in several])
        for row, context in zip(several, together, strict=True):
            found[row] = context
    return found


def reads_contexts(contract: Any) -> bool:  # noqa: ANN401 - its type would bring torch
    """Whether a model reads chunks within their documents."""
    return bool(getattr(contract, "in_context", False))


def refuse_alone(contract: Any, place: str) -> None:  # noqa: ANN401 - its type would bring torch
    """Refuse a model that reads chunks within their documents where chunks come without them.

    Raises:
        UserError: If it is one.
    """
    if reads_contexts(contract):
        raise UserError(
            place,
            "gives chunks without the documents that this model reads them in",
            got="in_context",
            cure='Give rows {"text": ..., "document": ...} to encode, mine, search or evaluate',
        )


def marked_in(contexts: Sequence[Context], length: int) -> list[str]:
    """Return chunks marked within their documents, for a model that reads so many tokens.

    What is kept of a long document begins and ends on a grid, so that neighbouring chunks have the same context and
    are encoded together.
    """
    return [_within(*context, REACH * length) for context in contexts]


def _within(document: str, place: tuple[int, int], reach: int) -> str:
    start, end = place
    if not document[start:end].strip():
        return document[start:end]
    first = max(0, start // reach - 1) * reach
    last = (end // reach + 2) * reach
    return mark(document[first:last], [start - first, end - first])
