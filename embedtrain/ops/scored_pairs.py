"""Pairs of texts with a number that says how alike they are: what similarity objectives learn from."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.ops.exponentials import only_where
from embedtrain.ops.similarity import pair_scores, single_vectors
from embedtrain.packed import upload
from embedtrain.types import Embeddings, RetrievalOutputs


@dataclass(frozen=True)
class ScoredPairs:
    """The pairs of all ranks: each candidate with the query that brought it."""

    query: Embeddings
    document: Embeddings
    owners: Int64[Tensor, " pairs"]
    """Each candidate's query, on the CPU."""
    labels: Float[Tensor, " pairs"]

    @property
    def similarity(self) -> Float[Tensor, " pairs"]:
        """What the model says: cosine, inner product or MaxSim."""
        return pair_scores(self.query, self.document, self.owners)

    def vectors(self) -> tuple[Float[Tensor, "pairs dim"], Float[Tensor, "pairs dim"]]:
        """Return both texts' vectors, for objectives that need more than their similarity."""
        query, document = single_vectors(self.query, self.document)
        return query[upload(self.owners, query.device)], document


def scored_pairs(outputs: RetrievalOutputs) -> ScoredPairs:
    """Return the scored pairs of a batch, over all ranks where the objective asked for all queries.

    Every rank then computes the loss of all pairs; the gradient that it sends back for its own texts comes
    from each rank, and their average is that of one process.

    Raises:
        UserError: If the rows have no scores.
    """
    query = outputs.query if outputs.all_queries is None else outputs.all_queries.embeddings
    owners = outputs.relevance.on_host.owners
    return ScoredPairs(query, outputs.document, owners, labels_of(outputs))


def labels_of(outputs: RetrievalOutputs) -> Float[Tensor, " documents"]:
    """Return the number of each candidate, in the type of the embeddings.

    Raises:
        UserError: If the rows have none.
    """
    labels = outputs.relevance.teacher_scores
    if labels is None:
        raise UserError(
            "objective",
            "learns from scored or labelled pairs and the rows have no numbers",
            cure="Name their column in data.sources: columns: {scores: ...} or {label: ...}",
        )
    document = outputs.document
    vectors = document if isinstance(document, Tensor) else document.tokens
    return labels.to(torch.promote_types(vectors.dtype, torch.float32))


def order_loss(
    similarity: Float[Tensor, " pairs"], labels: Float[Tensor, " pairs"], scale: float
) -> Float[Tensor, ""]:
    r"""Return $\log(1 + \sum_{y_i < y_j} e^{a (s_i - s_j)})$: every pair out of order costs, ties do not.

    Stores a number for every two pairs of the batch.
    """
    differences = scale * (similarity[:, None] - similarity[None, :])
    ordered = labels[:, None] < labels[None, :]
    return torch.logsumexp(F.pad(only_where(differences, ordered).flatten(), (1, 0)), 0)
