"""A causal language model writes: texts are gone on with, several at once, token by token.

What they begin with alike is computed once. Texts of a batch are padded on the left, behind what they share, so that
the next token of each stands at the same place.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformers import DynamicCache

from embedtrain.models.language.model import LanguageModel
from embedtrain.models.language.shared_prefix import TokenCount, common_size, extended, repeated

KEPT_RATIO = 0.5
"""When so few texts of a batch are still being written, the others leave its cache."""


@dataclass
class Draft:
    """A text that is being written.

    Attributes:
        ids: Tokens that it begins with.
        max_tokens: That are written at most.
        temperature: 0 takes the likeliest token.
        top_p: The likeliest tokens that hold this much of the probability are drawn from.
        seed: Of the draws.
        is_done: Given the tokens written so far: whether that is enough.
        written: Tokens that were written, without the one that ends the text.
        logs: Their log-probabilities, and that of the end, whatever the temperature.
        finish: ``stop``, ``length`` where it was cut; empty while it is being written.
    """

    ids: list[int]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    is_done: Callable[[list[int]], bool] = lambda _: False
    written: list[int] = field(default_factory=list)
    logs: list[float] = field(default_factory=list)
    finish: str = ""
    _draw: torch.Generator | None = None

    @property
    def log_probability(self) -> float | None:
        """Mean over the tokens; None where there is none."""
        return math.fsum(self.logs) / len(self.logs) if self.logs else None

    def go_on(self, logs: Float[Tensor, " vocabulary"], ends: frozenset[int]) -> int:
        """Write the next token, given all log-probabilities; return it. A text at its end stays as it is."""
        if self.finish:
            return 0
        token = self._choose(logs)
        self.logs.append(float(logs[token]))
        if token not in ends:
            self.written.append(token)
        if token in ends or self.is_done(self.written):
            self.finish = "stop"
        elif len(self.written) >= self.max_tokens:
            self.finish = "length"
        return token

    def _choose(self, logs: Float[Tensor, " vocabulary"]) -> int:
        if not self.temperature:
            return int(logs.argmax())
        if self._draw is None:
            self._draw = torch.Generator().manual_seed(self.seed)
        ordered, entries = (logs / self.temperature).softmax(0).sort(descending=True, stable=True)
        before = ordered.cumsum(0) - ordered
        ordered = ordered * ((before < self.top_p) | (before == 0))
        return int(entries[torch.multinomial(ordered, 1, generator=self._draw)])


def write(
    model: LanguageModel,
    drafts: Sequence[Draft],
    ends: frozenset[int],
    *,
    trunk: Any = None,  # noqa: ANN401 - transformers is untyped
    trunk_size: int = 0,
    count: TokenCount | None = None,
) -> None:
    """Write drafts to their ends, in one batch.

    Args:
        model: Who writes.
        drafts: Of at least one token behind the trunk.
        ends: Tokens that end a text.
        trunk: The cache of what all begin with, from :func:`begin`; it stays as it is.
        trunk_size: Its tokens.
        count: Is added to.
    """
    count = TokenCount() if count is None else count
    cache = (
        DynamicCache(config=model.model.config) if trunk is None else repeated(trunk, len(drafts))
    )
    ids, mask = _padded([one.ids[trunk_size:] for one in drafts], trunk_size, count)
    count.given += sum(len(one.ids) for one in drafts)
    rows = list(drafts)
    while True:
        states = model.states(ids, cache, mask)[:, -1]
        logs = model.of_vocabulary(states).float().log_softmax(-1).cpu()
        tokens = [one.go_on(own, ends) for one, own in zip(rows, logs, strict=True)]
        left = [row for row, one in enumerate(rows) if not one.finish]
        if not left:
            return
        if len(left) <= KEPT_RATIO * len(rows):
            cache.batch_select_indices(torch.tensor(left, device=model.device))
            rows, tokens, mask = (
                [rows[row] for row in left],
                [tokens[row] for row in left],
                mask[left],
            )
        ids = torch.tensor(tokens)[:, None]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
        count.computed += len(rows)


def begin(
    model: LanguageModel, drafts: Sequence[Draft], count: TokenCount | None = None
) -> tuple[Any, int]:
    """Compute what all drafts begin with; return its cache, None where there is nothing, and its number of tokens."""
    ids = [one.ids for one in drafts]
    size = min(common_size(ids), min(map(len, ids)) - 1)
    if size < 1 or len(drafts) == 1:
        return None, 0
    return extended(model, None, ids[0][:size], TokenCount() if count is None else count), size


def _padded(
    tails: list[list[int]], trunk_size: int, count: TokenCount
) -> tuple[Int64[Tensor, "texts tokens"], Tensor]:
    """Return tails, padded on the left, and where tokens are, those before the tails included."""
    longest = max(map(len, tails))
    count.computed += longest * len(tails)
    count.padding += longest * len(tails) - sum(map(len, tails))
    ids = torch.tensor([[0] * (longest - len(tail)) + tail for tail in tails])
    sizes = torch.tensor([len(tail) for tail in tails])
    seen = torch.arange(longest) >= longest - sizes[:, None]
    return ids, torch.cat([torch.ones(len(tails), trunk_size, dtype=torch.bool), seen], 1)
