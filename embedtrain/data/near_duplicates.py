"""Texts that say almost the same: MinHash finds candidates, the exact Jaccard similarity decides."""

import re
import zlib
from collections.abc import Sequence

import numpy as np

THRESHOLD = 0.8
NUM_BANDS, HASHES_PER_BAND = 12, 5
"""Two texts are compared if they agree in all hashes of a band: with a similarity of 0.8, 99 in 100 are."""
SHINGLE_WORDS = 3
TEXTS_PER_BLOCK = 4096

SINGLE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
"""Scripts that put no spaces between words: each of their characters counts as one."""
WORD = re.compile(rf"[{SINGLE}]|[^\W{SINGLE}]+")


def near_duplicates(texts: Sequence[str], num_kept: int = 0) -> list[int]:
    """Return for each text the index of the first kept text that it nearly repeats, or its own index.

    Two texts nearly repeat one another if the Jaccard similarity of their sets of three successive words
    (case and punctuation aside) is :data:`THRESHOLD` or more. A text is kept if it repeats no kept text
    before it, so the order decides which of two stays; the first ``num_kept`` are all kept, so that later ones are
    compared with each of them. What is reported is exact; a few may be missed.

    Source: Broder (1997), https://doi.org/10.1109/SEQUEN.1997.666900.
    """
    from datasketch import MinHash, MinHashLSH  # imports scipy, half a second

    num_hashes = NUM_BANDS * HASHES_PER_BAND
    index = MinHashLSH(num_perm=num_hashes, params=(NUM_BANDS, HASHES_PER_BAND))
    kept: dict[int, np.ndarray] = {}
    originals = []
    for start in range(0, len(texts), TEXTS_PER_BLOCK):
        shingles = [shingle_hashes(text) for text in texts[start : start + TEXTS_PER_BLOCK]]
        hashes = MinHash.bulk(shingles, num_perm=num_hashes, hashfunc=int)
        for row, (text_shingles, text_hashes) in enumerate(
            zip(shingles, hashes, strict=True), start
        ):
            candidates = sorted(index.query(text_hashes))
            original = next(
                (other for other in candidates if jaccard(text_shingles, kept[other]) >= THRESHOLD),
                row,
            )
            originals.append(original)
            if original == row or row < num_kept:
                kept[row] = text_shingles
                index.insert(row, text_hashes, check_duplication=False)
    return originals


def shingle_hashes(text: str) -> np.ndarray:
    """Hash every three successive words of a text (all of its words if there are fewer), each once."""
    words = WORD.findall(text.lower())
    last = max(1, len(words) - SHINGLE_WORDS + 1)
    shingles = {zlib.crc32(" ".join(words[i : i + SHINGLE_WORDS]).encode()) for i in range(last)}
    return np.array(sorted(shingles), dtype=np.uint64)


def jaccard(left: np.ndarray, right: np.ndarray) -> float:
    """Size of the intersection over size of the union of two sets without repetitions."""
    shared = np.intersect1d(left, right, assume_unique=True).size
    return float(shared / (left.size + right.size - shared))
