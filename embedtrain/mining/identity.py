"""Which texts are the same: exactly after normalisation, or nearly."""

import hashlib
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from embedtrain.data.near_duplicates import near_duplicates
from embedtrain.seals import keep_once


def text_digest(text: str) -> bytes:
    """Hash a text after NFKC, lower case and collapsing white space, in 128 bits."""
    normalised = " ".join(unicodedata.normalize("NFKC", text).lower().split())
    return hashlib.blake2b(normalised.encode(), digest_size=16).digest()


def first_rows(digests: Sequence[bytes]) -> Int64[np.ndarray, " texts"]:
    """Return for each text the row of the first one with the same digest."""
    first: dict[bytes, int] = {}
    rows = [first.setdefault(digest, row) for row, digest in enumerate(digests)]
    return np.array(rows, dtype=np.int64)


def cluster_rows(texts: Sequence[str], cache: Path) -> Int64[np.ndarray, " texts"]:
    """Return for each text the row of the first one that it nearly repeats; computed once per corpus.

    Holds the word triples of all texts in memory, about 10 bytes per word.
    """
    key = hashlib.sha256()
    for text in texts:
        key.update(hashlib.sha256(text.encode()).digest())

    def build(folder: Path) -> None:
        np.save(folder / "rows.npy", np.array(near_duplicates(texts), dtype=np.int64))

    folder = keep_once(cache / "near_duplicates" / key.hexdigest()[:32], build)
    rows: Int64[np.ndarray, " texts"] = np.load(folder / "rows.npy")
    return rows
