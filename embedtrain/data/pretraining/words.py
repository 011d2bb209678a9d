"""Where words begin among a text's tokens, and where its sentences end; for any fast tokenizer.

The tokenizer's own word ids come first. Tokenizers without a pre-tokenizer call a whole text one word, so
a token that follows or holds white space also begins one: together they serve WordPiece, byte-level BPE
(RoBERTa, ModernBERT) and SentencePiece alike. Scripts without spaces have no such words; there, and in URLs
or numbers, a word is cut after ``LONGEST`` tokens.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from embedtrain.data.words import SENTENCE_END

LONGEST = 8
"""Tokens of a word at most: hiding whole sentences of Chinese at once would leave nothing to learn from."""

SPACES = np.array([ord(space) for space in map(chr, range(0x3001)) if space.isspace()], np.uint32)


def find_word_starts(encoding: Any, text: str) -> Bool[np.ndarray, " tokens"]:  # noqa: ANN401 - untyped
    """Return which tokens of ``encoding``, made of ``text`` without special tokens, begin a word."""
    words = np.array(encoding.word_ids, dtype=np.float64)  # None, an added token, becomes NaN
    offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    begin, end = offsets[:, 0], offsets[:, 1]
    codes = np.frombuffer(f"{text} ".encode("utf-32-le"), dtype=np.uint32)
    starts = np.ones(len(words), dtype=bool)
    spaced = (begin[1:] > end[:-1]) | np.isin(codes[begin[1:]], SPACES)
    starts[1:] = (words[1:] != words[:-1]) | spaced
    places = np.arange(len(starts))
    within = places - np.maximum.accumulate(np.where(starts, places, 0))
    cut: Bool[np.ndarray, " tokens"] = starts | (within % LONGEST == 0)
    return cut


def find_sentence_starts(encoding: Any, text: str) -> Int64[np.ndarray, " sentences"]:  # noqa: ANN401
    """Return the places of the tokens that follow the end of a sentence or paragraph, in order."""
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    begin = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)[:, 0]
    places: Int64[np.ndarray, " sentences"] = np.unique(np.searchsorted(begin, ends))
    return places


def cut_spans(
    num_tokens: int,
    size: int,
    word_starts: Bool[np.ndarray, " tokens"],
    sentence_starts: Int64[np.ndarray, " sentences"],
) -> list[tuple[int, int]]:
    """Cut a text into spans of at most ``size`` tokens; return where each begins and ends.

    A span ends with the last sentence that fits if that fills half of it, else with the last word that fits,
    else anywhere.
    """
    spans, begin = [], 0
    words = word_starts.nonzero()[0]
    while num_tokens - begin > size:
        limit = begin + size
        end = (
            _last(sentence_starts, begin + size // 2, limit) or _last(words, begin, limit) or limit
        )
        spans.append((begin, end))
        begin = end
    if begin < num_tokens:
        spans.append((begin, num_tokens))
    return spans


def _last(places: Int64[np.ndarray, " places"], above: int, limit: int) -> int:
    """Return the last place in (above, limit], or 0."""
    index = int(np.searchsorted(places, limit, side="right")) - 1
    return int(places[index]) if index >= 0 and places[index] > above else 0
