"""Token ids of texts as the tokenizer itself gives them, without reading more of a text than is kept.

:mod:`embedtrain.contract.cuts` proves where a text may be cut. A long text is cut behind what fills the tokens
kept. Many texts are taken apart at all boundaries, and each distinct piece is tokenised once: words recur.
"""

import json
import re
from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from embedtrain.contract.cuts import BOUNDARY, PLAIN, Proof, ends_well, longest_run, prove
from embedtrain.workers import answer_all

CHARACTERS_PER_TOKEN = 8
"""Of a long text so many are read at first for each token kept; twice what English has."""
LEAST_CHARACTERS = 4096
GROWTH = 4
"""A head without enough tokens is read so many times as long."""
FURTHER_TOKENS = 256
"""Where no cut is proved, so many tokens behind those kept must be there, and twice the text agree."""
FEW = 32
"""Fewer texts are not worth taking apart."""
LONGEST_PIECE = 64
PIECES_KEPT = 1 << 17
"""Pieces remembered: about 20 MB."""
ID = np.dtype(np.int32)


class Pieces:
    """What is known of one tokenizer: what is proved of its cuts, and the tokens of pieces met before.

    Args:
        backend: A tokenizer of the tokenizers library.
    """

    def __init__(self, backend: Any) -> None:  # noqa: ANN401 - tokenizers is untyped
        self.backend = backend
        self.proof = prove(backend.to_str())
        self.run = longest_run(backend.to_str())
        self._first: dict[str, bytes] = {}
        self._later: dict[str, bytes] = {}

    def bodies(self, texts: Sequence[str], room: int | None) -> list[bytes]:
        """Return the int32 ids of each text without special tokens: the first ``room``, or all for None."""
        if room is None:
            return self._whole(texts)
        size = max(LEAST_CHARACTERS, room * CHARACTERS_PER_TOKEN)
        texts = [self._shortened(text) if len(text) > GROWTH * size else text for text in texts]
        found = [b""] * len(texts)
        todo = list(range(len(texts)))
        while todo:
            heads = [self._head(texts[row], size) for row in todo]
            unfinished = []
            for row, head, ids in zip(todo, heads, self._whole(heads), strict=True):
                found[row] = ids[: room * ID.itemsize]
                if len(head) < len(texts[row]) and not self._is_enough(texts[row], head, ids, room):
                    unfinished.append(row)
            todo = unfinished
            size *= GROWTH
        return found

    def _shortened(self, text: str) -> str:
        """Leave out the middle of runs of letters that are too long for a word; boundaries are untouched."""
        if self.run is None or BOUNDARY.search(text, 0, LEAST_CHARACTERS):
            return text  # with a word here and there it is cut before long
        kept = self.run
        long = re.compile(f"[0-9A-Za-z]{{{2 * kept},}}")
        return long.sub(lambda run: run[0][:kept] + run[0][-kept:], text)

    def _head(self, text: str, size: int) -> str:
        """Return the start of a text, a little more than ``size`` characters; a text not much longer whole."""
        if len(text) <= size:
            return text
        if self.proof is not Proof.NOTHING:
            cut = BOUNDARY.search(text, size, 2 * size)
            if cut is not None:
                return text[: cut.start()]
        return text[:size] if len(text) > GROWTH * GROWTH * size else text

    def _is_enough(self, text: str, head: str, ids: bytes, room: int) -> bool:
        """Whether the first ``room`` tokens of a head are those of the text."""
        num_tokens = len(ids) // ID.itemsize
        if self.proof is not Proof.NOTHING and BOUNDARY.match(text, len(head)):
            return num_tokens >= room
        if num_tokens < room + FURTHER_TOKENS:
            return False
        longer = self._tokenise([text[: 2 * len(head)]])[0]
        return ids[: room * ID.itemsize] == longer[: room * ID.itemsize]

    def _whole(self, texts: Sequence[str]) -> list[bytes]:
        """Return the ids of whole texts."""
        if self.proof is not Proof.PIECES or len(texts) < FEW:
            return self._tokenise(texts)
        first, later = self._first, self._later
        for known in (first, later):
            if len(known) > PIECES_KEPT:
                known.clear()
        parts = [self._parts(text) for text in texts]
        new_first = [one for one in {one[0] for one in parts} if one not in first]
        pieces: set[str] = set().union(*(one[1:] for one in parts))
        new_later = [one for one in pieces if one not in later]
        first.update(zip(new_first, self._tokenise(new_first), strict=True))
        later.update(
            zip(new_later, self._tokenise([f" {piece}" for piece in new_later]), strict=True)
        )
        found = [first[head] + b"".join([later[one] for one in rest]) for head, *rest in parts]
        _forget(first, new_first)
        _forget(later, new_later)
        return found

    def _parts(self, text: str) -> list[str]:
        """Take a text apart at its boundaries; their spaces are left out."""
        parts = text.split(" ")
        known = self._later
        if ends_well(parts[0]) and all(
            map(PLAIN.fullmatch, [one for one in parts[1:] if one not in known])
        ):
            return parts
        return BOUNDARY.split(text)

    def _tokenise(self, texts: Sequence[str]) -> list[bytes]:
        if not texts:
            return []
        self.backend.no_truncation()
        self.backend.no_padding()
        encoded = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [array("i", one.ids).tobytes() for one in encoded]


def _forget(known: dict[str, bytes], new: Sequence[str]) -> None:
    """Forget pieces that are long, or would not end at a boundary if a space and a letter followed them."""
    for piece in new:
        if len(piece) > LONGEST_PIECE or not ends_well(piece):
            del known[piece]


_KNOWN: "WeakKeyDictionary[Any, tuple[int, Pieces]]" = WeakKeyDictionary()


def pieces_of(tokenizer: Any) -> Pieces | None:  # noqa: ANN401 - transformers is untyped
    """Return what is known of a tokenizer of ``transformers``; None if it does more than its backend does."""
    from transformers import PreTrainedTokenizerFast

    if getattr(type(tokenizer), "_encode_plus", None) is not PreTrainedTokenizerFast._encode_plus:  # noqa: SLF001 - what it calls for every text
        return None
    size, pieces = _KNOWN.get(tokenizer, (0, None))
    if pieces is None or size != len(tokenizer):  # tokens may have been added
        pieces = Pieces(tokenizer.backend_tokenizer)
        _KNOWN[tokenizer] = (len(tokenizer), pieces)
    pieces.backend.encode_special_tokens = tokenizer.split_special_tokens
    return pieces


def special_tokens(backend: Any) -> tuple[bytes, bytes] | None:  # noqa: ANN401 - tokenizers is untyped
    """Return the int32 ids put before and behind every text; None if they are put elsewhere as well."""
    backend.no_truncation()
    backend.no_padding()
    plain = backend.encode("a", add_special_tokens=False).ids
    shown = backend.encode("a").ids
    number = len(shown) - len(plain)
    for start in range(number + 1):
        if plain and shown[start : start + len(plain)] == plain:
            before, behind = shown[:start], shown[start + len(plain) :]
            return np.array(before, dtype=ID).tobytes(), np.array(behind, dtype=ID).tobytes()
    return None


def cut_ids(
    pieces: Pieces,
    texts: Sequence[str],
    length: int,
    *,
    is_right: bool = True,
    special: bool = True,
) -> list[bytes] | None:
    """Return the int32 ids of texts with special tokens, ``length`` at most; None if these end elsewhere.

    Args:
        pieces: What is known of the tokenizer.
        texts: Any texts, with their prompts.
        length: Tokens kept, special ones included.
        is_right: Whether texts that are too long lose their ends, not their starts.
        special: Whether special tokens stand around a text at all.
    """
    ends = special_tokens(pieces.backend) if special else (b"", b"")
    if ends is None:
        return None
    before, behind = ends
    room = length - (len(before) + len(behind)) // ID.itemsize
    if room < 1:
        return None
    bodies = pieces.bodies(texts, room if is_right else None)
    kept = slice(None) if is_right else slice(-room * ID.itemsize, None)
    return [b"".join((before, ids[kept], behind)) for ids in bodies]


def tokenise_heads(
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped
    texts: Sequence[str],
    length: int,
    *,
    special: bool = True,
) -> list[NDArray[np.int32]] | None:
    """Return the token ids of texts as ``tokenizer(texts, truncation=True, max_length=length)`` gives them.

    None where that is no slower: for a few short texts, and for tokenizers that do more than the library's.
    """
    if len(texts) < FEW and all(len(text) <= LEAST_CHARACTERS for text in texts):
        return None
    pieces = pieces_of(tokenizer)
    is_right = tokenizer.truncation_side == "right"
    found = (
        None
        if pieces is None
        else cut_ids(pieces, texts, length, is_right=is_right, special=special)
    )
    # Of a bytearray the array may be written to.
    return None if found is None else [np.frombuffer(bytearray(ids), dtype=ID) for ids in found]


@lru_cache(maxsize=1)
def _pieces_in(path: str, split_special_tokens: bool) -> Pieces:
    from tokenizers import Tokenizer

    pieces = Pieces(Tokenizer.from_file(path))
    pieces.backend.encode_special_tokens = split_special_tokens
    return pieces


def _answer(question: bytes) -> bytes:
    """Tokenise for another process, see :mod:`embedtrain.contract.processes`."""
    asked = json.loads(question)
    pieces = _pieces_in(asked["tokenizer"], asked["split_special_tokens"])
    options = {name: asked[name] for name in ("is_right", "special")}
    found = cut_ids(pieces, asked["texts"], asked["length"], **options)
    assert found is not None, "the process that asks has tried one text"
    lengths = array("i", [len(ids) // ID.itemsize for ids in found])
    return b"".join((lengths.tobytes(), *found))


if __name__ == "__main__":
    answer_all(_answer)
