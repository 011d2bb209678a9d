"""A model of vectors as a scorer of pairs: inner products, MaxSim, or its own network over two vectors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from embedtrain.encoding.cache import model_key
from embedtrain.encoding.pair_work import PairWork
from embedtrain.encoding.texts import encode_texts
from embedtrain.models.build import load_encoder
from embedtrain.models.dense.pair_head import interaction_of
from embedtrain.models.encoder import TextEncoder
from embedtrain.ops.interaction import interaction_pairs
from embedtrain.ops.similarity import pair_scores
from embedtrain.precision import Chosen, Precision, choose
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import Embeddings, Side, TokenVectors

SIDES: tuple[Side, Side] = ("query", "document")
PAIRS_AT_ONCE = 1024


class EncoderPairs:
    """An encoder of any kind: each distinct text of a call is encoded once."""

    precision: Chosen = "fp32"

    def __init__(self, path: str, *, precision: Precision = "auto") -> None:
        self.model = load_encoder(path)
        self.precision = choose(precision, self.model.device.type)
        self.work = PairWork()

    def key(self) -> str:
        """Return a hash of the weights, the contract and the precision."""
        return f"{model_key(self.model)} {self.precision}"

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Float64[np.ndarray, " pairs"]:
        """Score pairs by the similarity of their vectors."""
        if not pairs:
            return np.empty(0)
        queries, documents = (
            self._encode(texts, side)
            for side, texts in zip(SIDES, zip(*pairs, strict=True), strict=True)
        )
        self.work.pairs += len(pairs)
        blocks = [slice(at, at + PAIRS_AT_ONCE) for at in range(0, len(pairs), PAIRS_AT_ONCE)]
        return np.concatenate(
            [
                score_vectors(self.model, queries.vectors(one), documents.vectors(one))
                for one in blocks
            ]
        )

    def _encode(self, texts: Sequence[str], side: Side) -> "_Encoded":
        row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        distinct = encode_texts(self.model, list(row_of), side, precision=self.precision)
        return _Encoded(distinct, np.array([row_of[text] for text in texts]))


@torch.no_grad()
def score_vectors(
    model: TextEncoder, queries: Embeddings, documents: Embeddings
) -> Float64[np.ndarray, " pairs"]:
    """Score each query with the document that stands where it stands."""
    own = torch.arange(len(queries))
    if (interaction := interaction_of(model)) is not None:
        assert isinstance(queries, Tensor)
        assert isinstance(documents, Tensor)
        found = interaction_pairs(interaction.to("cpu"), queries, documents, own)
    else:
        found = pair_scores(queries, documents, own)
    scores: Float64[np.ndarray, " pairs"] = found.double().numpy()
    return scores


@dataclass(frozen=True)
class _Encoded:
    """Distinct texts of a side, and where each pair's is."""

    distinct: Float32[np.ndarray, "texts dim"] | TokenVectors | SparseVectors
    rows: Int64[np.ndarray, " pairs"]

    def vectors(self, pairs: slice) -> Embeddings:
        """Return the vectors of the texts of some pairs, one text per pair."""
        rows = self.rows[pairs]
        if isinstance(self.distinct, TokenVectors):
            return self.distinct.select(rows).tensors()
        if isinstance(self.distinct, SparseVectors):
            return torch.from_numpy(self.distinct.select(rows).dense())
        return torch.from_numpy(self.distinct[rows])
