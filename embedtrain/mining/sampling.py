"""Which of the surviving candidates become negatives; random numbers depend on seed, epoch and query id."""

import hashlib
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64
from pydantic import NonNegativeFloat, PositiveInt

from embedtrain.section import Section


class Sampling(Section):
    r"""How negatives are chosen among the candidates that survive, which come in merged order.

    ``top`` takes the first, ``uniform`` draws without replacement, ``simans`` draws without replacement with
    $p \propto \exp(-a (s - s^+ - b)^2)$: most of all those that score a little below (or above) the positive.

    Source: SimANS, Zhou et al. (2022), https://arxiv.org/abs/2210.11773.
    """

    kind: Literal["top", "uniform", "simans"] = "top"
    pool: PositiveInt | None = None
    """Draw from so many first survivors only; null draws from all."""
    a: NonNegativeFloat = 20.0
    """For ``simans``: how sharply the preferred score is preferred."""
    b: float = 0.0
    """For ``simans``: the preferred score, relative to the positive's."""

    def choose(
        self,
        scores: Float64[np.ndarray, " survivors"],
        positive: float,
        wanted: int,
        generator: np.random.Generator,
    ) -> Int64[np.ndarray, " chosen"]:
        """Return the places of the chosen survivors, in merged order; all where fewer survive."""
        size = min(len(scores), self.pool or len(scores))
        if self.kind == "top" or wanted >= size:
            return np.arange(min(wanted, size))
        # Gumbel noise on log-probabilities draws without replacement and cannot underflow.
        keys = generator.gumbel(size=size)
        if self.kind == "simans":
            keys = keys - self.a * (scores[:size] - positive - self.b) ** 2
        return np.sort(np.argsort(-keys, kind="stable")[:wanted])


def query_generator(seed: int, epoch: int, query_id: str) -> np.random.Generator:
    """Return the generator of one query: the same on every machine, whichever queries come before it."""
    digest = hashlib.blake2b(f"{seed}|{epoch}|{query_id}".encode(), digest_size=8).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
