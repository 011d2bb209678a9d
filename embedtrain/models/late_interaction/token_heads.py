"""From token states to the vectors that late interaction compares."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from embedtrain.contract.late_contract import LateInteractionContract
from embedtrain.models.late_interaction.token_scorer import TokenScorer
from embedtrain.models.pooling import positions, widen
from embedtrain.ops.similarity import text_of_token
from embedtrain.types import TokenEmbeddings


class TokenHeads(nn.Module):
    """The trained layers between backbone and vectors; which of them exist says the contract.

    Args:
        width: Dimension of the token states.
        contract: Dimensions, gate, vector of the whole text.
        head_dims: Dimensions of several projections that are trained at once, largest first; the contract's
            ``dim`` chooses which of them is used. Empty for one projection.
        bias: Whether projections have one (ColBERTer's do, ColBERT's do not).
    """

    def __init__(
        self,
        width: int,
        contract: LateInteractionContract,
        head_dims: tuple[int, ...] = (),
        *,
        bias: bool = False,
    ) -> None:
        super().__init__()
        inner = contract.word_dim or contract.dim
        self.head_dims = head_dims or (inner,)
        self.projection = nn.Linear(width, sum(self.head_dims), bias=bias)
        self.gate = nn.Linear(inner, 1) if contract.gate else None
        if self.gate is not None:
            nn.init.zeros_(self.gate.weight)
            nn.init.ones_(self.gate.bias)  # open: a gate that starts closed has no gradient
        scored = contract.token_scorer
        self.scorer = None if scored is None else TokenScorer(width, scored)
        self.reduction = nn.Linear(inner, contract.dim) if contract.word_dim else None
        self.cls = nn.Linear(width, contract.cls_dim) if contract.cls_dim else None
        self.bit_scale = nn.Parameter(torch.ones(contract.dim)) if contract.bit_scale else None
        # Shape [1], not []: DeepSpeed cannot broadcast 0-dimensional parameters.
        self.fusion = nn.Parameter(torch.zeros(1)) if contract.cls_dim else None

    def project(self, states: Float[Tensor, "tokens width"]) -> Float[Tensor, "tokens dims"]:
        """Project token states with all heads, side by side, in float32 at least."""
        return widen(self.projection(states))

    def normalize(self, projected: Float[Tensor, "tokens dims"]) -> Float[Tensor, "tokens dims"]:
        """Normalise each head's vector by itself."""
        heads = torch.split(projected, list(self.head_dims), dim=1)
        normalized: Tensor = torch.cat([F.normalize(head, dim=1) for head in heads], 1)
        return normalized

    def scaled(self, queries: Float[Tensor, "tokens dim"]) -> Float[Tensor, "tokens dim"]:
        r"""Return queries times the size that a document's bit of each dimension stands for, $\sqrt d\, g / \lVert g \rVert$.

        The inner product with signs of length 1 is then that of the query with $g \cdot \mathrm{sign}$ of length 1, so
        an index of signs knows nothing of it.

        Source: the calibration of BTR, Cao et al. (2024), https://arxiv.org/abs/2310.01329, which takes bits before a
        norm's learned weight; on the side of the query it is ours.
        """
        if self.bit_scale is None:
            return queries
        root = self.bit_scale.shape[0] ** 0.5
        found: Tensor = queries * (root * F.normalize(self.bit_scale, dim=0))
        return found

    def fusion_weight(self) -> Float[Tensor, "1"]:
        """Return the share of the whole text's vector in the score; one half before training."""
        assert self.fusion is not None
        return torch.sigmoid(self.fusion)


def mean_gate(
    documents: TokenEmbeddings, owners: Int64[Tensor, " documents"], num_queries: int
) -> Float[Tensor, ""] | None:
    """Return the mean gate of a document's words, averaged as :func:`mean_of_documents` does."""
    if documents.gates is None:
        return None
    text = text_of_token(documents.lengths, len(documents.tokens))
    zeros = documents.gates.new_zeros(len(documents))
    per_document = zeros.index_add(0, text, documents.gates) / documents.lengths
    return mean_of_documents(per_document, owners, num_queries)


def mean_of_documents(
    per_document: Float[Tensor, " documents"], owners: Int64[Tensor, " documents"], num_queries: int
) -> Float[Tensor, ""]:
    """Return the mean over each query's documents, averaged over queries; documents that no query brought count for nothing.

    A mean over all words would not be the mean of the ranks' means; this one is, as the loss is.
    """
    brought, rows = (owners >= 0).to(per_document), owners.clamp_min(0)
    num_owned = per_document.new_zeros(num_queries).index_add(0, rows, brought).clamp_min(1)
    return (per_document * brought / num_owned[rows]).sum() / num_queries


def open_only(embeddings: TokenEmbeddings) -> TokenEmbeddings:
    """Drop the vectors whose gate is closed; a text that would lose all keeps its first."""
    assert embeddings.gates is not None
    num_tokens = len(embeddings.tokens)
    text = text_of_token(embeddings.lengths, num_tokens)
    kept = embeddings.gates > 0
    num_open = torch.zeros_like(embeddings.lengths).index_add_(0, text, kept.long())
    kept |= (positions(embeddings.lengths, num_tokens) == 0) & (num_open[text] == 0)
    lengths = torch.zeros_like(embeddings.lengths).index_add_(0, text, kept.long())
    ids = None if embeddings.ids is None else embeddings.ids[kept]
    return TokenEmbeddings(
        embeddings.tokens[kept], lengths, ids, embeddings.cls, embeddings.exact_match
    )
