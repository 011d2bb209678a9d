"""Random choices that follow from names, never from a shared stream: another document changes none of them."""

import hashlib

import numpy as np


def number(*names: object) -> int:
    """Return 64 bits that follow from the names."""
    digest = hashlib.blake2b(
        "|".join(map(str, names)).encode(errors="surrogatepass"), digest_size=8
    ).digest()
    return int.from_bytes(digest, "big")


def generator(*names: object) -> np.random.Generator:
    """Return a generator that follows from the names."""
    return np.random.Generator(np.random.PCG64(number(*names)))
