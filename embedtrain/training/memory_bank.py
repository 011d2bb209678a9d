"""Negatives of earlier steps, and the asymmetric batch norm that keeps a batch from giving itself away (CCP)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from embedtrain.bank_types import Bank
from embedtrain.models.dense.contrast_head import ContrastHead, Statistics
from embedtrain.types import RetrievalOutputs

ENOUGH = 4
"""One over the share of a bank that must be filled before it is used."""


class MemoryBank:
    """The last vectors of each source of data, first in, first out: no language is compared with another.

    All ranks hold the same entries, in an order that their ids decide.
    """

    def __init__(self, num_sources: int, size: int) -> None:
        self.size = size
        self.pushed = [0] * num_sources
        self.vectors: list[Tensor | None] = [None] * num_sources
        self.ids: list[Tensor | None] = [None] * num_sources

    def view(self, source: int, device: torch.device | None = None) -> Bank | None:
        """Return the entries of a source, the oldest first; None while they are fewer than a quarter of its size."""
        vectors, ids, pushed = self.vectors[source], self.ids[source], self.pushed[source]
        if vectors is None or ids is None or pushed * ENOUGH < self.size:
            return None
        order = torch.arange(max(0, pushed - self.size), pushed, device=ids.device) % self.size
        return Bank(vectors[order].to(device), ids[order].to(device))

    def push(
        self, source: int, vectors: Float[Tensor, "texts dim"], ids: Int64[Tensor, " texts"]
    ) -> None:
        """Put the vectors of a step in the place of the oldest."""
        order = ids.argsort(stable=True)[-self.size :]
        kept, kept_ids = self.vectors[source], self.ids[source]
        if kept is None or kept_ids is None:
            kept = vectors.new_zeros(self.size, vectors.shape[1])
            kept_ids = ids.new_full((self.size,), -1)
        first = self.pushed[source]
        # A checkpoint is read before the model is on its device.
        kept, kept_ids = kept.to(vectors.device), kept_ids.to(ids.device)
        places = torch.arange(first, first + len(order), device=ids.device) % self.size
        kept[places], kept_ids[places] = vectors[order].detach(), ids[order]
        self.vectors[source], self.ids[source] = kept, kept_ids
        self.pushed[source] = first + len(order)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"pushed": self.pushed, "vectors": self.vectors, "ids": self.ids}

    def load(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on from what a checkpoint kept."""
        self.pushed = list(state["pushed"])
        self.vectors, self.ids = (
            [None if one is None else one.to(device) for one in state[name]]
            for name in ("vectors", "ids")
        )


class ContextContrast:
    """Puts a contrast head and a bank between a model's vectors and the objective ``ccp``.

    One side of a step is normalised by the statistics of its batch, the other by the running ones; they swap at
    every step. The latter fills the bank, where the step is done, once however often it was computed.
    """

    def __init__(self, model: nn.Module, sizes: Sequence[int | None], num_sources: int) -> None:
        found = getattr(model, "contrast_head", None)
        self.head: ContrastHead | None = found
        asked = [size for size in sizes if size is not None]
        self.bank = MemoryBank(num_sources, max(asked, default=1))
        self._seen: dict[int, tuple[int, Tensor, Tensor, Statistics]] = {}

    def compared(
        self, outputs: RetrievalOutputs, *, source: int, step: int, micro_batch: int
    ) -> RetrievalOutputs:
        """Return the outputs with what the head makes of both sides, and the bank of their source."""
        if self.head is None:
            return outputs
        everyone, relevance = outputs.all_queries, outputs.relevance
        asked = outputs.query if everyone is None else everyone.embeddings
        asked_ids = relevance.query_ids if everyone is None else everyone.ids
        assert isinstance(asked, Tensor)
        assert isinstance(outputs.document, Tensor)
        even = step % 2 == 0
        query, of_queries = self.head(asked, of_batch=even)
        document, of_documents = self.head(outputs.document, of_batch=not even)
        steady = (document, relevance.document_ids) if even else (query, asked_ids)
        statistics = of_queries if even else of_documents
        assert statistics is not None
        self._seen[micro_batch] = source, steady[0].detach(), steady[1], statistics
        return replace(
            outputs,
            query=query[: len(outputs.query)],
            document=document,
            all_queries=everyone and replace(everyone, embeddings=query),
            bank=self.bank.view(source, document.device),
        )

    def step_done(self) -> None:
        """Keep what the step's micro-batches showed."""
        for number in sorted(self._seen):
            source, vectors, ids, statistics = self._seen[number]
            assert self.head is not None
            self.head.learn(statistics)
            self.bank.push(source, vectors, ids)
        self._seen = {}
