"""Passkeys in texts of growing length: does a model see the end of what it claims to read?

Source: Zhu et al. (2024), https://arxiv.org/abs/2404.12096 (LongEmbed); texts are made here, in words.
"""

from typing import ClassVar

import numpy as np

from embedtrain.evaluation.probes.base import Finding, Probe, ProbeWish
from embedtrain.evaluation.probes.long_texts import hide, score_lengths
from embedtrain.evaluation.tasks.subject import Subject

FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
NAMES = "Anna Boris Clara David Elena Farid Greta Hugo Irene Jonas Karin Leo Mira Nils Olga Paul"


class Passkey(Probe):
    """Ask for the key of a person, which stands at a random place of one document among others like it.

    nDCG@1 is the share of keys that are found; half of the documents are distractors with other names.
    """

    name: ClassVar[str] = "passkey"

    @classmethod
    def run(cls, subject: Subject, wish: ProbeWish) -> list[Finding]:
        """Search at each length."""
        return score_lengths(subject, wish, make_passkeys)


def make_passkeys(length: int, size: int, seed: int) -> tuple[list[str], list[str]]:
    """Make queries and documents of about ``length`` words; document ``i`` holds the key of query ``i``."""
    rng = np.random.Generator(np.random.PCG64([seed, length]))
    names = NAMES.split()
    people = [
        f"{names[n % len(names)]} {names[n // len(names) % len(names)]}{n}" for n in range(2 * size)
    ]
    documents = []
    for person in people:
        key = f"The pass key of {person} is {rng.integers(10_000, 99_999)}. Remember it."
        documents.append(hide(key, FILLER.split(), length, rng))
    return [f"what is the pass key for {person}?" for person in people[:size]], documents
