"""Texts with a marked span: the part of a text that a vector shall stand for, the rest being its context.

A marked text is a string like any other, so that caches, ids and batches need not know of it. Its marks are
pairs of code points that Unicode sets aside for use inside programs and that no text holds. A tokenizer never
sees them: the tokens of the span carry a bit, which a model with ``spans`` reads and takes away.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedtrain.errors import UserError

START, END = "\ufdd0\ufdd2", "\ufdd1\ufdd3"
IN_SPAN = 1 << 30
"""The bit that tokens of a span carry; vocabularies are far smaller."""
FORM = 'Write "span": [start, end], or [[start, end], ...] for a span of several pieces'
Piece = tuple[int, int]


def is_marked(text: str) -> bool:
    """Whether a text has a marked span."""
    return START in text


def mark(text: str, span: object, place: object = "span") -> str:
    """Return the text with a span marked.

    Args:
        text: Any text.
        span: ``[start, end]``, or a list of such pieces in ascending order; places of characters, counted from
            0, the end outside. White space at the ends of a piece is not part of it.
        place: Where it stands, for the error.

    Raises:
        UserError: If it is no span of this text.
    """
    pieces = [_trimmed(text, *piece) for piece in _pieces(span, len(text), place)]
    if any(start >= end for start, end in pieces):
        raise UserError(place, "holds white space only", got=span, cure="Correct it")
    if START in text or END in text:
        raise UserError(place, "is of a text that has a mark already", got=text)
    marked = text
    for start, end in reversed(pieces):
        marked = f"{marked[:start]}{START}{marked[start:end]}{END}{marked[end:]}"
    return marked


def unmark(text: str) -> tuple[str, list[Piece]]:
    """Return the plain text and the pieces of its span."""
    first, *rest = text.split(START)
    plain, pieces = first, []
    for part in rest:
        inside, _, after = part.partition(END)
        pieces.append((len(plain), len(plain) + len(inside)))
        plain += inside + after
    return plain, pieces


def tokenise_marked(
    tokenise: Callable[..., Any],
    texts: Sequence[str],
    prompt: str,
    length: int,
    place: str,
) -> list[NDArray[np.int32]]:
    """Return the token ids of texts, marked or not, with the bit of :data:`IN_SPAN` on tokens of spans.

    A token belongs to a span if they share a character.

    Args:
        tokenise: Calls a tokenizer of ``transformers`` that cuts texts.
        texts: Any texts, at least one of them marked.
        prompt: Put before every text.
        length: Tokens that are kept, for the error.
        place: The setting that says so, for the error.

    Raises:
        UserError: If a span is cut off.
    """
    plain, spans = zip(*map(unmark, texts), strict=True)
    encoded = tokenise([prompt + text for text in plain], return_offsets_mapping=True)
    found = []
    for text, pieces, ids, offsets in zip(
        plain, spans, encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        tokens = np.asarray(ids, dtype=np.int32)
        inside = _inside(pieces, offsets, len(prompt))
        if pieces and not inside.any():
            shown = " ".join(text[start:end] for start, end in pieces)
            raise UserError(
                f"the span {shown!r}",
                f"lies behind the {length} tokens that are kept of a text",
                got=text,
                cure=f"Raise {place}, or leave the row out",
            )
        found.append(np.where(inside, tokens | IN_SPAN, tokens).astype(np.int32))
    return found


def _inside(pieces: Sequence[Piece], offsets: Sequence[Piece], shift: int) -> NDArray[np.bool_]:
    """Return which tokens share a character with a piece; special tokens have none."""
    places = np.asarray(offsets, dtype=np.int64).reshape(-1, 2) - shift
    inside = np.zeros(len(places), dtype=bool)
    for start, end in pieces:
        inside |= (places[:, 0] < end) & (places[:, 1] > start)
    return inside & (places[:, 0] < places[:, 1])


def _pieces(span: object, size: int, place: object) -> list[Piece]:
    """Read a span as it stands in a file."""
    listed = list(span) if isinstance(span, list | tuple) else []
    several = listed if listed and isinstance(listed[0], list | tuple) else [listed]
    pieces: list[Piece] = []
    for piece in several:
        if len(piece) != 2 or not all(type(number) is int for number in piece):
            raise UserError(place, "is no pair of places in the text", got=span, cure=FORM)
        start, end = piece
        if not (pieces[-1][1] if pieces else 0) <= start < end <= size:
            raise UserError(
                place,
                f"does not ascend within the {size} characters of its text",
                got=span,
                cure=FORM,
            )
        pieces.append((start, end))
    return pieces


def _trimmed(text: str, start: int, end: int) -> Piece:
    inside = text[start:end]
    return start + len(inside) - len(inside.lstrip()), start + len(inside.rstrip())
