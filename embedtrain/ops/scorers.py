"""How the queries and documents of a batch are scored: by what the model scores pairs with, else by similarity."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.interaction_types import Interaction
from embedtrain.ops.interaction import (
    InteractionTask,
    interaction_pairs,
    interaction_scores,
    numbers_per_pair,
)
from embedtrain.ops.row_blocks import SCORES_AT_ONCE, in_blocks
from embedtrain.ops.similarity import all_scores, pair_scores
from embedtrain.types import Embeddings, RetrievalOutputs


@dataclass(frozen=True)
class Scorer:
    """Scores pairs by an interaction, or by similarity where there is none."""

    interaction: Interaction | None
    task: InteractionTask = "retrieval"

    def all(self, query: Embeddings, document: Embeddings) -> Float[Tensor, "queries documents"]:
        """Score every query against every document."""
        if self.interaction is None:
            return all_scores(query, document)
        return interaction_scores(self.interaction, _vectors(query), _vectors(document), self.task)

    def pairs(
        self, query: Embeddings, document: Embeddings, owners: Int64[Tensor, " documents"]
    ) -> Float[Tensor, " documents"]:
        """Score document ``n`` against query ``owners[n]``."""
        if self.interaction is None:
            return pair_scores(query, document, owners)
        vectors = _vectors(query), _vectors(document)
        return interaction_pairs(self.interaction, *vectors, owners, self.task)

    def at_once(self) -> int:
        """Return how many scores are computed together."""
        if self.interaction is None:
            return SCORES_AT_ONCE
        return SCORES_AT_ONCE // numbers_per_pair(self.interaction)


def scores_in_blocks(
    outputs: RetrievalOutputs, scorer: Scorer
) -> Float[Tensor, "queries documents"]:
    """Score every query against every document; only the scores stay, the backward pass computes the rest again."""
    blocks = in_blocks(
        outputs, lambda query, document, _: scorer.all(query, document), scorer.at_once()
    )
    return torch.cat(blocks)


def _vectors(embeddings: Embeddings) -> Tensor:
    assert isinstance(embeddings, Tensor), "only dense models score pairs otherwise"
    return embeddings
