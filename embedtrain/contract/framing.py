"""What stands around a text: behind it as well as before it, in one way or in several.

A prompted language model is asked for a text's meaning, and its answer would stand behind the question, so the vector is
the state of the last token of what follows the text. That suffix is therefore never cut: the text is. A frame is
tokenised as one string, for a quotation mark may share a token with the text's last character.

Where a text is shown in several frames, its tokens are those of all frames end to end. The first token of each frame
carries a bit, and so does a placeholder before the text itself; the model takes them away.

Source: Jiang et al. (2023), https://arxiv.org/abs/2307.16645 (PromptEOL); Lei et al. (2024),
https://arxiv.org/abs/2402.18458 (MetaEOL).
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, model_validator

from embedtrain.errors import UserError
from embedtrain.section import Section
from embedtrain.types import Side

FRAME, PLACE = 1 << 29, 1 << 28
"""The bits of a frame's first token and of a placeholder; vocabularies are far smaller."""


class Frame(Section):
    """What stands before and behind a text."""

    prompt: str = ""
    suffix: str = ""


class Contrast(Section):
    """Take away what a text says under another frame, in one layer (contrastive prompting)."""

    prompt: str = ""
    """Of the frame that asks for what is to be taken away."""
    suffix: str = ""
    layer: NonNegativeInt = 4
    """The layer, counted from 0, whose attention is changed at the last token."""
    form: Literal["norm", "scaled", "scaled_norm", "sub_head_norm", "added"] = "scaled"
    """With A and B the heads' outputs under the usual frame and this one, and c the coefficient: ``scaled`` c(A - B);
    ``norm`` A - B as long as A; ``scaled_norm`` c times that; ``sub_head_norm`` the same for each head apart; ``added``,
    which is ours, A + c(A - B)."""
    coefficient: float = 0.5


class Framing(Section):
    """The frames of a model's texts."""

    query_suffix: str = ""
    document_suffix: str = ""
    prompts: tuple[Frame, ...] = ()
    """Frames of texts of both sides, whose vectors are averaged, in place of prompt and suffix of a side."""
    contrast: Contrast | None = None
    query_cut: Literal["end", "start"] = Field(
        default="end", exclude_if=lambda value: value == "end"
    )
    """Where queries that are too long lose tokens: a conversation its start, so that its last turn is whole."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Framing":
        if self.prompts and (self.query_suffix or self.document_suffix or self.contrast):
            raise ValueError("prompts take the place of a suffix, and go with no contrast")
        return self

    def suffix(self, side: Side) -> str:
        """Return what stands behind every text of ``side``."""
        return self.query_suffix if side == "query" else self.document_suffix

    def frames(self, side: Side, prompt: str) -> list[Frame]:
        """Return the frames of a text of ``side``, whose own prompt is ``prompt``; a contrast's comes last."""
        if self.prompts:
            return list(self.prompts)
        own = Frame(prompt=prompt, suffix=self.suffix(side))
        against = self.contrast
        return [own, *([Frame(prompt=against.prompt, suffix=against.suffix)] if against else [])]


def tokenise_framed(
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped
    texts: Sequence[str],
    frames: Sequence[Frame],
    length: int,
    *,
    place: int | None = None,
    keep_end: bool = False,
) -> list[NDArray[np.int32]]:
    """Return the token ids of each text in all its frames, each frame of at most ``length`` tokens.

    Args:
        tokenizer: One of transformers' fast ones.
        texts: Any texts.
        frames: What stands around them, at least one.
        length: Tokens of a frame, special tokens, prompt and suffix included.
        place: A token put between prompt and text, marked by :data:`PLACE`.
        keep_end: Whether texts that are too long lose their starts, not their ends.

    Raises:
        UserError: If a frame leaves no room for a text.
    """
    by_frame = [_in_frame(tokenizer, texts, frame, length, place, keep_end) for frame in frames]
    if len(frames) == 1:
        return by_frame[0]
    for ids in (one for rows in by_frame for one in rows):
        ids[0] |= FRAME
    return [np.concatenate(own) for own in zip(*by_frame, strict=True)]


def _in_frame(
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped
    texts: Sequence[str],
    frame: Frame,
    length: int,
    place: int | None,
    keep_end: bool,
) -> list[NDArray[np.int32]]:
    room = length - (place is not None)
    whole = _tokens(tokenizer, [frame.prompt + text + frame.suffix for text in texts])
    found = []
    for text, (ids, offsets) in zip(texts, whole, strict=True):
        if len(ids) > room:
            ids, offsets = (_cut_start if keep_end else _cut)(tokenizer, text, frame, room)  # noqa: PLW2901 - the text is another
        if place is not None:
            start = len(frame.prompt)
            # Special tokens have no characters; a text may have none either, and then its suffix begins here.
            behind = np.flatnonzero((offsets[:, 1] > start) & (offsets[:, 0] < offsets[:, 1]))
            ids = np.insert(ids, behind[0] if len(behind) else len(ids), place | PLACE)  # noqa: PLW2901
        found.append(ids.astype(np.int32))
    return found


def _cut(
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped
    text: str,
    frame: Frame,
    length: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids and offsets of the longest start of a text that leaves the frame whole."""
    [(ids, offsets)] = _tokens(tokenizer, [frame.prompt + text], special=False)
    around = len(_tokens(tokenizer, [frame.suffix])[0][0])
    # A seam may take a token more than its parts do: then a token less is tried.
    for kept in range(min(length - around, len(ids)), 0, -1):
        end = int(offsets[kept - 1][1])
        if end <= len(frame.prompt):
            break
        [found] = _tokens(tokenizer, [(frame.prompt + text)[:end] + frame.suffix])
        if len(found[0]) <= length:
            return found
    raise _no_room(frame)


def _cut_start(
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped
    text: str,
    frame: Frame,
    length: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids and offsets of the longest end of a text that leaves the frame whole."""
    [(ids, offsets)] = _tokens(tokenizer, [text + frame.suffix], special=False)
    around = len(_tokens(tokenizer, [frame.prompt])[0][0])
    for kept in range(min(length - around, len(ids)), 0, -1):
        start = int(offsets[-kept][0])
        if start >= len(text):
            break
        [found] = _tokens(tokenizer, [frame.prompt + (text + frame.suffix)[start:]])
        if len(found[0]) <= length:
            return found
    raise _no_room(frame)


def _no_room(frame: Frame) -> UserError:
    return UserError(
        "the frame of a text",
        "leaves no room for the text",
        got=frame.prompt + "..." + frame.suffix,
        cure="Raise its length, or shorten what stands around it",
    )


def _tokens(
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped
    texts: Sequence[str],
    *,
    special: bool = True,
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return ids of whole strings, and which characters each is made of."""
    found = tokenizer(
        list(texts),
        add_special_tokens=special,
        truncation=False,
        padding=False,
        return_offsets_mapping=True,
        verbose=False,
    )
    return [
        (np.asarray(ids, dtype=np.int64), np.asarray(places, dtype=np.int64).reshape(-1, 2))
        for ids, places in zip(found["input_ids"], found["offset_mapping"], strict=True)
    ]
