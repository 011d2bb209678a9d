"""Our own vectors of texts, each encoded by itself in float32, and what they would be if we encoded otherwise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from embedtrain.contract.texts import Pooling
from embedtrain.encoding.texts import default_execution, encode_tokens, encoder_of
from embedtrain.models.backbone.word_table import WordTable
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.pooling import pool
from embedtrain.packed import Texts
from embedtrain.precision import Chosen
from embedtrain.types import Side
from embedtrain.verification.values import Mode, Probe, Vector

KEPT = 256
"""Texts whose states are kept, for changes behind them to be tried."""
Attention = Literal["causal", "full"]


@dataclass(frozen=True)
class Change:
    """A way to encode otherwise; what is None stays as it is."""

    cause: str
    """What a reader that does so does wrong."""
    prompt: Callable[[Mode], str] | None = None
    ids: Callable[[str, Mode], Sequence[int]] | None = None
    """Token ids of prompt and text together."""
    attention: Attention | None = None
    pooling: Pooling | Literal["inner_mean"] | None = None
    """``inner_mean`` leaves the first and the last token out."""
    without_projection: bool = False
    is_of_texts: bool = False
    """Whether it may concern odd texts only."""

    def and_(self, other: "Change") -> "Change | None":
        """Return both at once; None where they change the same."""
        fields = ("prompt", "ids", "attention", "pooling", "without_projection")
        if any(getattr(self, name) and getattr(other, name) for name in fields):
            return None
        both = {name: getattr(self, name) or getattr(other, name) for name in fields}
        return Change(f"{self.cause}; {other.cause}", **both)


AS_IS = Change("")


class Ours:
    """A model, on texts one by one.

    Args:
        model: In float32.
    """

    def __init__(self, model: DenseEncoder) -> None:
        self.model = model.to("cpu").eval()
        self.contract = model.contract
        self.tokenizer = model.tokenizer
        self._states = lru_cache(KEPT)(self._computed_states)

    @property
    def can_change(self) -> bool:
        """Whether encoding otherwise is a matter of prompts, ids, attention, pooling and projection."""
        return self.model.is_portable and not self.contract.document_model

    @property
    def modes(self) -> list[Mode]:
        """The modes whose vectors differ."""
        found: list[Mode] = []
        every: tuple[Mode, ...] = ("document", "query", "plain")
        for mode in every:
            same = [(self.prompt(one), self.length(one)) for one in found]
            if self.contract.document_model or (self.prompt(mode), self.length(mode)) not in same:
                found.append(mode)
        return found

    def prompt(self, mode: Mode) -> str:
        """Return what stands before a text."""
        return "" if mode == "plain" else self.contract.prompt(mode)

    def length(self, mode: Mode) -> int:
        """Return the tokens that are kept of a text."""
        return self.contract.length(side_of(mode))

    def count(self, text: str, mode: Mode) -> int:
        """Return the tokens of a text with its prompt, none cut off."""
        return len(self.tokenizer(self.prompt(mode) + text, verbose=False)["input_ids"])

    def cut(self, whole: str, length: int) -> list[int]:
        """Return at most so many token ids of prompt and text."""
        found = self.tokenizer(whole, truncation=True, max_length=length, verbose=False)
        ids: list[int] = found["input_ids"]
        return ids

    def ids(self, probe: Probe, change: Change = AS_IS) -> list[int]:
        """Return the token ids of a text."""
        prompt = self.prompt(probe.mode) if change.prompt is None else change.prompt(probe.mode)
        whole = prompt + probe.text
        if change.ids is not None:
            return list(change.ids(whole, probe.mode))
        if change is AS_IS and probe.mode != "plain":  # frames and the like
            (found,) = self.model.tokenization([probe.text], side_of(probe.mode))
            return [int(one) for one in found]
        return self.cut(whole, self.length(probe.mode))

    def vector(self, probe: Probe, precision: Chosen = "fp32") -> Vector:
        """Return the vector of a text as the model is meant to give it.

        Raises:
            UserError: If it is not finite.
        """
        side = side_of(probe.mode)
        model = encoder_of(self.model, side)
        model.eval()
        tokens = _texts([self.ids(probe)])
        found = encode_tokens(model, tokens, side, default_execution(model.device), precision)
        assert isinstance(found, Tensor)
        vector: Vector = found[0].numpy()
        return vector

    def changed(self, probe: Probe, change: Change) -> Vector | None:
        """Return the vector of a text under a change; None where nothing is left to encode."""
        ids = self.ids(probe, change)
        return self.vector_of(ids, change) if 0 < len(ids) <= self.most else None

    @property
    def most(self) -> int:
        """Tokens that the backbone has positions for."""
        limit = getattr(self.model.backbone.config, "max_position_embeddings", None)
        return max(self.length("query"), self.length("document"), limit or 0)

    def vector_of(self, ids: Sequence[int], change: Change = AS_IS) -> Vector:
        """Return the vector of token ids."""
        states = self._states(tuple(ids), change.attention)
        return self.pooled(states, change)

    def pooled(self, states: Float[Tensor, "tokens width"], change: Change = AS_IS) -> Vector:
        """Return the vector that states of tokens are pooled to."""
        pooling = change.pooling or self.contract.pooling
        if pooling == "inner_mean":
            states, pooling = states[1:-1] if len(states) > 2 else states, "mean"
        pooled = pool(states, torch.tensor([len(states)]), pooling)
        with torch.no_grad():
            if self.model.projection is not None and not change.without_projection:
                pooled = self.model.projection(pooled)
            if self.contract.similarity == "cosine":
                pooled = F.normalize(pooled, dim=-1)
        vector: Vector = pooled[0].float().numpy()
        return vector

    def padded_states(
        self, ids: Sequence[int], pads: int, *, seen: bool
    ) -> Float[Tensor, "tokens width"]:
        """Return the states of tokens and of so much padding behind them, which others may look at or not."""
        filled = torch.tensor([[*ids, *[self.tokenizer.pad_token_id or 0] * pads]])
        mask = torch.ones_like(filled)
        if not seen:
            mask[0, len(ids) :] = 0
        return self._run(filled, mask)

    def _computed_states(
        self, ids: tuple[int, ...], attention: Attention | None
    ) -> Float[Tensor, "tokens width"]:
        inputs = torch.tensor([ids])
        if attention is None or isinstance(self.model.backbone, WordTable):
            with torch.no_grad():
                return self.model.states(_texts([ids]), packed=False)
        allowed = torch.ones(1, 1, len(ids), len(ids), dtype=torch.bool)
        allowed = allowed.tril() if attention == "causal" else allowed
        lowest = torch.finfo(torch.float32).min
        return self._run(inputs, torch.zeros(allowed.shape).masked_fill(~allowed, lowest))

    def _run(self, ids: Tensor, mask: Tensor) -> Float[Tensor, "tokens width"]:
        self.model.use_padded_attention()
        with torch.no_grad():
            output = self.model.backbone(input_ids=ids, attention_mask=mask, use_cache=False)
        states: Tensor = output.last_hidden_state[0]
        return states


def side_of(mode: Mode) -> Side:
    """Return the side whose length a mode has."""
    return "query" if mode == "query" else "document"


def _texts(ids: Sequence[Sequence[int]]) -> Texts:
    flat = torch.tensor([one for text in ids for one in text], dtype=torch.int64)
    return Texts(flat, torch.tensor([len(text) for text in ids], dtype=torch.int64))


def distance(one: Vector, other: Vector) -> float:
    """Return 1 - cosine of two vectors; infinite where they cannot be compared."""
    if one.shape != other.shape or not (np.isfinite(one).all() and np.isfinite(other).all()):
        return float("inf")
    first, second = one.astype(np.float64), other.astype(np.float64)
    norms = float(np.linalg.norm(first) * np.linalg.norm(second))
    if norms == 0:
        return 0.0 if not (first.any() or second.any()) else 1.0
    # Rather than 1 - cosine, whose rounding would hide what is below 1e-8.
    unit = first / np.linalg.norm(first) - second / np.linalg.norm(second)
    return float(unit @ unit) / 2
