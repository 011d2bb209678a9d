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


def as_fields(text: str) -> str | dict[str, object]:
    """Return a text as a row of a file has it: itself, or ``{"text", "span"}`` where it is marked."""
    if not is_marked(text):
        return text
    plain, pieces = unmark(text)
    return {"text": plain, "span": list(pieces[0]) if len(pieces) == 1 else list(map(list, pieces))}


def alone(text: str) -> str:
    """Return the marked part of a text, its pieces side by side; all of it where nothing is marked."""
    if not is_marked(text):
        return text
    plain, pieces = unmark(text)
    return " ".join(plain[start:end] for start, end in pieces)


def tokenise_marked(
    tokenise: Callable[..., Any],
    texts: Sequence[str],
    prompt: str,
    length: int,
    place: str,
    *,
    windowed: bool = False,
) -> list[NDArray[np.int32]]:
    """Return the token ids of texts, marked or not, with the bit of :data:`IN_SPAN` on tokens of spans.

    A token belongs to a span if they share a character.

    Args:
        tokenise: Calls a tokenizer of ``transformers`` that cuts texts.
        texts: Any texts, at least one of them marked.
        prompt: Put before every text.
        length: Tokens that are kept, for the error.
        place: The setting that says so, for the error.
        windowed: Keep so many tokens around the span of a longer text, in place of the first; see :func:`_window`.

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
        if windowed and pieces and len(tokens) >= length:
            tokens, inside = _window(tokenise, prompt, text, pieces, length)
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


def _window(
    tokenise: Callable[..., Any], prompt: str, text: str, pieces: Sequence[Piece], length: int
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return the tokens around a span, with the prompt and the special tokens, and which are inside of the span.

    Windows begin at multiples of half their size, so that spans side by side have the same one, of whose tokens half
    are read once more for the next. The span stands as near the middle as that allows.
    """
    whole = tokenise([prompt + text], return_offsets_mapping=True, truncation=False)
    tokens = np.asarray(whole["input_ids"][0], dtype=np.int32)
    offsets = whole["offset_mapping"][0]
    inside = _inside(pieces, offsets, len(prompt))
    body = np.flatnonzero([end > max(start, len(prompt)) for start, end in offsets])
    if len(tokens) <= length or not inside.any():
        return tokens, inside
    before, behind = int(body[0]), len(tokens) - 1 - int(body[-1])
    room = length - before - behind
    step, (first, last) = max(1, room // 2), np.flatnonzero(inside)[[0, -1]] - before
    start = max(0, round((first + last + 1 - room) / 2 / step)) * step
    if first < start or last >= start + room:  # longer than half a window
        start = first // step * step
    start = min(start, -(-(len(body) - room) // step) * step)
    every = np.arange(len(tokens))
    kept = (every < before) | (every >= len(tokens) - behind)
    kept[before + start : before + start + room] = True
    return tokens[kept], inside[kept]


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
