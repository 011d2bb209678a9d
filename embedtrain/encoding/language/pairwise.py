r"""A language model says of two documents which is better; the score is how often a document wins against its row's others.

Every pair is read in both orders, because models lean to one place:
$s_i = \frac{1}{2(G - 1)} \sum_{j \ne i} \big(p(i \text{ of } i, j) + 1 - p(j \text{ of } j, i)\big)$,
where the first of both stands first, and $p$ is over their two letters.
Sources: Qin et al. (2023), PRP, https://arxiv.org/abs/2306.17563; InstUPR (2024), https://arxiv.org/abs/2403.16435, whose
second round this is.
"""

from collections.abc import Sequence
from itertools import groupby, permutations

import numpy as np
from jaxtyping import Float64

from embedtrain.encoding.language.listwise import Listwise
from embedtrain.encoding.language.reader import key_of
from embedtrain.encoding.language.settings import LanguageSettings
from embedtrain.encoding.pair_work import PairWork
from embedtrain.models.language.model import LanguageModel
from embedtrain.precision import Chosen


class Pairwise:
    """Scores the documents of a query by how probably each beats another, between 0 and 1.

    Pairs of one query that follow one another are a list. One of G documents is read G (G - 1) times; a document
    alone gets one half.

    Args:
        model: What compares.
        settings: How it is asked; a list has two places.

    Raises:
        UserError: If the template lacks a place.
    """

    def __init__(self, model: LanguageModel, settings: LanguageSettings) -> None:
        self._lists = Listwise(model, settings.model_copy(update={"window": 2, "step": 1}))

    @property
    def precision(self) -> Chosen:
        """What the network computes in."""
        return self._lists.precision

    @property
    def work(self) -> PairWork:
        """What has been computed so far."""
        return self._lists.work

    def key(self) -> str:
        """Return a hash of all that a score depends on, but for the list itself."""
        return key_of(self._lists.model, "pairwise", self._lists.key())

    def describe(self) -> dict[str, object]:
        """Return what the scores came from, for those who are to make them again."""
        told = self._lists.describe() | {"kind": "pairwise", "scale": "share of wins"}
        return {name: value for name, value in told.items() if name not in ("window", "step")}

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Float64[np.ndarray, " pairs"]:
        """Score pairs by the share of the others of their list that they beat."""
        lists = [list(own) for _, own in groupby(pairs, key=lambda pair: pair[0])]
        asked = [
            (first[0], [first[1], second[1]])
            for own in lists
            for first, second in permutations(own, 2)
        ]
        self.work.pairs += len(pairs)
        wins = np.zeros(0)
        if asked:
            letters = self._lists.letters_of(asked).numpy()
            wins = 1 / (1 + np.exp(letters[:, 1] - letters[:, 0]))  # of the one that stands first
        scores, read = [], 0
        for own in lists:
            size = len(own)
            beaten = np.full((size, size), 0.5)
            beaten[~np.eye(size, dtype=bool)] = wins[read : read + size * (size - 1)]
            read += size * (size - 1)
            both = (beaten + 1 - beaten.T) / 2
            scores.append((both.sum(1) - 0.5) / (size - 1) if size > 1 else np.full(1, 0.5))
        return np.concatenate(scores) if scores else np.zeros(0)
