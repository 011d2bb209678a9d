"""Tokenise in other processes: for sources of so many texts that it would take minutes in one."""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedtrain.contract.pieces import ID, Pieces, cut_ids, pieces_of
from embedtrain.contract.spans import is_marked
from embedtrain.contract.texts import Tokenization
from embedtrain.types import Side
from embedtrain.workers import num_cores, workers

MOST_PROCESSES = 4
"""Whoever reads the texts and writes the tokens cannot keep more of them busy."""

Tokens = Sequence[NDArray[np.int32]]
Tokenise = Callable[[Sequence[str], Side], Callable[[], Tokens]]
"""Takes texts, and returns what waits for their tokens."""


@contextmanager
def tokenising_processes(tokenization: Tokenization, place: str) -> Iterator[Tokenise]:
    """Yield what gives texts the tokens that ``tokenization`` gives them, by several processes.

    By this one where it has one core only, or the tokenizer is none of the library's.

    Args:
        tokenization: Tokenizer and contract.
        place: Where the texts come from, for errors.
    """
    tokenizer, contract = tokenization.tokenizer, tokenization.contract
    pieces = pieces_of(tokenizer)
    shortest = min(contract.length("query"), contract.length("document"))
    if num_cores() < 2 or pieces is None or _no_tokens(tokenization, pieces, shortest):
        yield lambda texts, side: partial(tokenization, texts, side)
        return
    number = min(num_cores(), MOST_PROCESSES)
    with (
        tempfile.TemporaryDirectory() as folder,
        workers("embedtrain.contract.pieces", number, place) as ask,
    ):
        path = Path(folder) / "tokenizer.json"
        path.write_text(pieces.backend.to_str(), encoding="utf-8")
        settings = {
            "tokenizer": str(path),
            "split_special_tokens": tokenizer.split_special_tokens,
            "is_right": tokenizer.truncation_side == "right",
            "special": tokenization.with_special,
        }

        def tokenise(texts: Sequence[str], side: Side) -> Callable[[], Tokens]:
            if tokenization.framing is not None or any(map(is_marked, texts)):
                return partial(tokenization, texts, side)
            prompt = contract.prompt(side)
            question = {"texts": [prompt + text for text in texts], "length": contract.length(side)}
            answer = ask(json.dumps(settings | question).encode())
            return lambda: _unpacked(answer.result(), len(texts))

        yield tokenise


def _no_tokens(tokenization: Tokenization, pieces: Pieces, length: int) -> bool:
    return cut_ids(pieces, ["a"], length, special=tokenization.with_special) is None


def _unpacked(answer: bytes, num_texts: int) -> Tokens:
    """Return the tokens of each text: the answer is their numbers, then all of them end to end."""
    numbers = np.frombuffer(answer, dtype=ID)
    lengths, ids = numbers[:num_texts], numbers[num_texts:]
    ends = np.cumsum(lengths).tolist()
    return [ids[start:end] for start, end in zip([0, *ends][:-1], ends, strict=True)]
