"""Texts to encode that are chunks, each read within the document that its row names."""

from collections.abc import Callable, Iterable, Iterator

from embedtrain.contract.context import contexts_of, marked_in, reads_contexts, refuse_alone
from embedtrain.models.encoder import TextEncoder
from embedtrain.types import Side

Row = tuple[str, str | None]
"""A text, and the document that it is a chunk of."""


class Chunks:
    """Rows as an encoder reads them within their documents.

    A document is all its rows in their order, so all texts are in memory; their marked forms are not.

    Args:
        rows: All of them.
        encoder: What reads them.

    Raises:
        UserError: If no row names its document.
    """

    def __init__(self, rows: Iterable[Row], encoder: TextEncoder) -> None:
        texts, owners = zip(*rows, strict=True)
        if not any(owners):
            refuse_alone(encoder.contract, "encode")
        self._contexts = contexts_of(texts, owners)
        self._length = encoder.contract.length("document")

    def texts(self, first: int = 0, last: int | None = None) -> Iterator[str]:
        """Yield the marked texts of some rows."""
        for context in self._contexts[first:last]:
            yield from marked_in([context], self._length)


def open_chunks(
    read: Callable[[], Iterable[Row]], encoder: TextEncoder, side: Side
) -> Chunks | None:
    """Return what is read as chunks for an encoder that takes documents so; None for another, and for queries."""
    if side == "query" or not reads_contexts(encoder.contract):
        return None
    return Chunks(read(), encoder)
