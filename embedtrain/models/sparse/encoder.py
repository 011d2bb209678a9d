"""Sparse encoder: one vector per text, as long as a vocabulary or dictionary and nearly all zeros."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.contract.sparse_contract import SparseContract
from embedtrain.models.backbone.loading import Backbone, Packing
from embedtrain.models.chunking import Execution, encode_rows_in_chunks
from embedtrain.models.dense.echo import twice
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.sparse.code_head import CodeHead
from embedtrain.models.sparse.query_weights import QueryWeights
from embedtrain.models.sparse.token_weights import TokenWeights
from embedtrain.models.sparse.vocabulary_head import VocabularyHead
from embedtrain.models.sparse.winner_take_all import WinnerTakeAll
from embedtrain.ops.largest_entries import keep_largest
from embedtrain.packed import Texts, laid_end_to_end
from embedtrain.types import RetrievalBatch, RetrievalOutputs, Side


class SparseEncoder(TextEncoder):
    """Backbone and head: texts in, one weight for each word of a vocabulary or entry of a dictionary out, none below 0.

    Vectors are dense tensors here, zeros and all, so that every objective serves; what is kept of a corpus is not.

    Args:
        backbone: Model and tokenizer; the head may share its weights.
        contract: Prompts, lengths, and what becomes of logits.
        head: From token states to weights, a code's in two steps.
        query_weights: What encodes queries in place of the backbone, or None.
        packing: See :class:`TextModel`.
        learn_temperature: Start value of a learnable temperature, or None.

    Raises:
        UserError: As :class:`TextEncoder` does.
    """

    contract: SparseContract

    def __init__(
        self,
        backbone: Backbone,
        contract: SparseContract,
        head: VocabularyHead | WinnerTakeAll | TokenWeights | CodeHead,
        query_weights: QueryWeights | None = None,
        *,
        packing: Packing = "auto",
        learn_temperature: float | None = None,
    ) -> None:
        super().__init__(backbone, contract, packing=packing, learn_temperature=learn_temperature)
        self.head = head
        self.query_weights = query_weights

    @property
    def dim(self) -> int:
        """Number of entries of a vector."""
        return self.head.dim

    @property
    def is_portable(self) -> bool:
        """Whether sentence-transformers can express it: it computes the same vectors."""
        head = self.head
        closed = True
        if isinstance(head, VocabularyHead):
            closed = not len(head.dropped) or head.language.bias is not None
        return closed and self.contract.is_portable

    def forward(self, batch: RetrievalBatch, execution: Execution) -> RetrievalOutputs:
        """Encode each distinct text of the batch once and lay the weights out by query and candidate."""
        queries, documents, host = batch.queries, batch.documents, batch.on_host
        if self.query_weights is None:
            both = laid_end_to_end(queries, documents)
            rows = host.query_rows, len(queries) + host.document_rows
            query, document = self._encoded(both, execution, *rows)
        else:
            query = self.query_weights(queries)[batch.query_rows]
            document = self._encoded(documents, execution, host.document_rows)[0]
        code = self.head.seen(query, document) if isinstance(self.head, CodeHead) else None
        return RetrievalOutputs(
            query=keep_largest(self._finished(query), self.contract.query_top_k),
            document=keep_largest(self._finished(document), self.contract.document_top_k),
            code=code,
            relevance=batch.relevance,
            temperature=self.temperature,
            similarity="dot",
        )

    def texts_of(self, batch: RetrievalBatch) -> Texts:
        """Return the distinct texts that the backbone runs over."""
        return super().texts_of(batch) if self.query_weights is None else batch.documents

    def embed(
        self, texts: Texts, execution: Execution, side: Side = "document"
    ) -> Float[Tensor, "texts dim"]:
        """Return the weights of the texts of one side, in their order, in float32 at least."""
        if side == "query" and self.query_weights is not None:
            weights: Tensor = self.query_weights(texts)
        else:
            every = torch.arange(len(texts))
            weights = self._finished(self._encoded(texts, execution, every)[0])
        return keep_largest(weights, self.contract.top_k(side))

    def _finished(self, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "rows dim"]:
        """Return the weights of texts from what chunks gave: a code is made from dense vectors, all at once."""
        return self.head.code(rows) if isinstance(self.head, CodeHead) else rows

    def _encoded(
        self, texts: Texts, execution: Execution, *rows: Int64[Tensor, " _"]
    ) -> tuple[Float[Tensor, "_ width"], ...]:
        packed = self.packs(texts)
        if self.contract.echo:
            execution = replace(execution, chunk_tokens=max(1, execution.chunk_tokens // 2))

        def encode(chunk: Texts) -> Float[Tensor, "chosen dim"]:
            weights: Tensor = self.head(self._states(chunk, packed=packed), chunk)
            return weights

        return encode_rows_in_chunks(encode, texts, execution, *rows, padded=not packed)

    def _states(self, texts: Texts, *, packed: bool) -> Float[Tensor, "tokens width"]:
        layers = self.head.layers if isinstance(self.head, WinnerTakeAll) else ()
        if not self.contract.echo:
            return self.states(texts, packed=packed, layers=layers)
        shown, own = twice(texts)
        return self.states(shown, packed=packed, layers=layers)[own]
