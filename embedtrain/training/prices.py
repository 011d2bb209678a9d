"""Prices that follow a target: what entries cost rises while texts have too many, and falls while they have too few."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from embedtrain.objectives.base import Objective
from embedtrain.ops.word_activity import num_entries
from embedtrain.types import RetrievalOutputs

RATE = 0.01
"""Largest change of the logarithm of a price at one step."""
MEMORY = 0.95
"""Share of the running mean of entries that a step leaves as it is."""


class Prices:
    """Factors of what entries of queries and of documents cost, for each objective of a training.

    After each step a factor is multiplied by $(n / n^*)^{0.01}$, n the running mean of the entries of a text and $n^*$
    the target, by 1 % at most. All ranks see the same numbers and need not agree on them. Numbers stay on their device.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self.targets = [objective.target_entries for objective in objectives]
        size = (len(objectives), 2)
        self.logarithms = torch.zeros(size, dtype=torch.float64)
        self.entries = torch.zeros(size, dtype=torch.float64)
        self._seen: list[tuple[int, Tensor]] = []

    def priced(self, outputs: RetrievalOutputs, place: int) -> RetrievalOutputs:
        """Return the outputs with the factors of one objective, and look how many entries its texts have."""
        if self.targets[place] is None:
            return outputs
        query, document = outputs.query, outputs.document
        assert isinstance(query, Tensor)
        assert isinstance(document, Tensor)
        words = outputs.query_words
        own = num_entries(query)[0].double().mean()
        asked = own if words is None else words.share.double().sum()
        given = num_entries(document)[0].double().mean()
        self._seen = [(place, torch.stack([asked, given]))]
        self._to(query.device)
        return replace(outputs, price_factors=self.logarithms[place].exp().to(query.dtype))

    def step_done(self) -> None:
        """Let the prices of the step's objective follow what its texts had; what was looked at twice counts once."""
        for place, seen in self._seen:
            target = self.targets[place]
            assert target is not None
            mean = self.entries[place]
            mean = torch.where(mean > 0, MEMORY * mean + (1 - MEMORY) * seen, seen)
            self.entries[place] = mean
            wanted = torch.tensor([one or torch.nan for one in target], dtype=mean.dtype)
            change = (mean.clamp_min(1e-3) / wanted.to(mean.device)).log().clamp(-1, 1)
            self.logarithms[place] += RATE * change.nan_to_num(0.0)
        self._seen = []

    def state(self) -> list[list[list[float]]]:
        """Return what a checkpoint keeps."""
        return [self.logarithms.tolist(), self.entries.tolist()]

    def load(self, state: Sequence[Sequence[Sequence[float]]]) -> None:
        """Go on from what a checkpoint kept."""
        self.logarithms, self.entries = (torch.tensor(part, dtype=torch.float64) for part in state)

    def _to(self, device: torch.device) -> None:
        self.logarithms, self.entries = self.logarithms.to(device), self.entries.to(device)
