"""Late-interaction encoder: several vectors per text, compared by MaxSim."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.contract.late_contract import LateInteractionContract
from embedtrain.models.backbone.loading import Backbone, Packing
from embedtrain.models.chunking import Execution, encode_tokens_in_chunks
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.late_interaction.bit_recovery import BitRecovery
from embedtrain.models.late_interaction.token_heads import (
    TokenHeads,
    mean_gate,
    mean_of_documents,
    open_only,
)
from embedtrain.models.late_interaction.token_pooling import drawn, pool_embeddings
from embedtrain.models.late_interaction.token_scorer import with_scores
from embedtrain.models.pooling import grid_places, in_grid, positions, widen
from embedtrain.models.whole_words import WholeWords, average_words
from embedtrain.ops.similarity import as_computed, text_of_token
from embedtrain.ops.straight_through import straight_through_sign
from embedtrain.packed import Texts, upload
from embedtrain.types import RetrievalBatch, RetrievalOutputs, Side, TokenEmbeddings


class LateInteractionEncoder(TextEncoder):
    """Backbone and token heads: texts in, one vector per kept token or word out.

    Queries may be expanded with mask tokens; documents lose the vectors of skipped words. Which tokens count
    travels as lengths of packed vectors, so there are no masks to get wrong. The markers of the contract
    are among the tokens of the backbone.
    """

    contract: LateInteractionContract

    def __init__(
        self,
        backbone: Backbone,
        contract: LateInteractionContract,
        heads: TokenHeads,
        *,
        packing: Packing = "auto",
        learn_temperature: float | None = None,
        pool_factors: tuple[int, ...] = (),
        recovery: bool = False,
    ) -> None:
        super().__init__(backbone, contract, packing=packing, learn_temperature=learn_temperature)
        self.heads, self.pool_factors = heads, pool_factors
        self.recovery = BitRecovery(contract.dim) if recovery else None
        self.whole_words = WholeWords(self.tokenizer) if contract.words else None
        never = skipped_ids(self.tokenizer, contract.skiplist)
        if contract.token_scorer is not None:
            never += self.tokenizer.all_special_ids
        skipped = torch.tensor(never, dtype=torch.int64)
        self.skipped = skipped  # stays on the CPU, where it is decided which vectors there are

    @property
    def dim(self) -> int:
        """Dimension of a vector."""
        return self.contract.dim

    def forward(self, batch: RetrievalBatch, execution: Execution) -> RetrievalOutputs:
        """Encode each distinct text of the batch once and lay the vectors out by query and candidate.

        With several heads the vectors of all heads lie side by side, in the order of ``head_dims``.
        """
        query = as_computed(self._embed(batch.queries, execution, "query", every_head=True))
        document = as_computed(self._embed(batch.documents, execution, "document", every_head=True))
        rows, recovery, owners = batch.on_host, None, batch.relevance.owners
        if self.recovery is not None:
            document, missed = self.recovery(document)
            each = missed[batch.document_rows]
            recovery = mean_of_documents(each, owners, len(batch.query_rows))
        document = document.select(rows.document_rows)
        return RetrievalOutputs(
            query=query.select(rows.query_rows),
            document=document,
            relevance=batch.relevance,
            temperature=self.temperature,
            similarity=self.contract.similarity,
            gate=mean_gate(document, owners, len(batch.query_rows)),
            recovery=recovery,
            cls_share=None if self.heads.fusion is None else self.heads.fusion_weight()[0],
        )

    def embed(self, texts: Texts, execution: Execution, side: Side = "document") -> TokenEmbeddings:
        """Return the vectors of the texts' kept tokens, in float32 at least; words a gate closes are dropped."""
        embeddings = self._embed(texts, execution, side, every_head=False)
        return embeddings if embeddings.gates is None else open_only(embeddings)

    def _embed(
        self, texts: Texts, execution: Execution, side: Side, *, every_head: bool
    ) -> TokenEmbeddings:
        packed = self.packs(texts)
        scorer = self.contract.token_scorer if side == "document" else None
        layers = () if scorer is None or scorer.layer is None else (scorer.layer,)

        def encode(chunk: Texts) -> TokenEmbeddings:
            expanded, attended = self._expand(chunk, side)
            states = self.states(expanded, attended, packed=packed, layers=layers)
            *lower, last = states.chunk(len(layers) + 1, dim=1)
            return self._head(last, expanded, side, (*lower, last)[0], every_head=every_head)

        return encode_tokens_in_chunks(
            encode, texts, execution, padded=not packed, least=self.least_length(side)
        )

    def least_length(self, side: Side) -> int:
        """Return the length to which shorter texts of ``side`` are expanded; 0 for documents."""
        expands = side == "query" and self.contract.query_expansion
        return self.contract.query_length if expands else 0

    def _expand(self, texts: Texts, side: Side) -> tuple[Texts, Int64[Tensor, " texts"] | None]:
        """Fill queries up with mask tokens; return how many tokens of each others may look at, on the CPU."""
        length = self.least_length(side)
        if not length:
            return texts, None
        host = texts.on_host
        inside = grid_places(host.lengths, length)
        ids = in_grid(host.ids, inside, (len(host), length), self.tokenizer.mask_token_id)
        expanded = Texts(ids.flatten(), torch.full_like(host.lengths, length))
        seen = None if self.contract.attend_to_expansion else host.lengths
        return expanded.to(texts.ids.device), seen

    def _head(
        self,
        states: Float[Tensor, "tokens width"],
        texts: Texts,
        side: Side,
        scored: Float[Tensor, "tokens width"],
        *,
        every_head: bool,
    ) -> TokenEmbeddings:
        contract, heads = self.contract, self.heads
        places, kept = self._kept(texts.on_host, side)
        every = len(places) == len(states)
        own = states if every else states.index_select(0, upload(places, states.device))
        scores = None
        if heads.scorer is not None and side == "document":
            asked = scored.index_select(0, upload(places, states.device))
            chosen, kept, scores = heads.scorer.choose(asked, kept)
            own = own.index_select(0, chosen)
        vectors = heads.project(own)
        if not every_head:
            place = heads.head_dims.index(contract.word_dim or contract.dim)
            vectors = torch.split(vectors, list(heads.head_dims), dim=1)[place]
        gates = None
        if self.whole_words is not None:
            vectors, kept = average_words(vectors, kept)
        if heads.gate is not None and side == "document":
            gates = heads.gate(vectors).relu().squeeze(1)
            vectors = vectors * gates[:, None]
        if heads.reduction is not None:
            vectors = heads.reduction(vectors)
        if contract.similarity == "cosine":
            vectors = heads.normalize(vectors) if every_head else F.normalize(vectors, dim=1)
        if every_head and heads.scorer is not None:
            vectors = with_scores(vectors, scores)
        cls = None
        if heads.cls is not None:
            cls = widen(heads.cls(states[texts.lengths.cumsum(0) - texts.lengths]))
            if side == "query":
                share = heads.fusion_weight()
                vectors, cls = vectors * (1 - share), cls * share
        kept = kept.to(states.device)
        embeddings = TokenEmbeddings(
            vectors, kept.lengths, kept.ids, cls, contract.exact_match, gates, kept.sizes
        )
        factors = drawn(self.pool_factors, texts, every_head)
        return self._compress(embeddings, side, factors, floats=every_head)

    def _compress(
        self, embeddings: TokenEmbeddings, side: Side, factors: Sequence[int], *, floats: bool
    ) -> TokenEmbeddings:
        """Return what is left of the vectors; where floats are to be recovered from bits, with these behind the bits."""
        contract, documents = self.contract, embeddings
        if side == "query":
            return replace(embeddings, tokens=self.heads.scaled(embeddings.tokens))
        if factors or contract.pool_factor > 1:
            normalized, factor = contract.similarity == "cosine", factors or contract.pool_factor
            documents = pool_embeddings(documents, factor, normalized=normalized)
        if not contract.binary:
            return documents
        bits = straight_through_sign(documents.tokens)
        if floats and self.recovery is not None:
            bits = torch.cat([bits, documents.tokens], dim=1)
        return replace(documents, tokens=bits)

    def kept_places(self, texts: Texts, side: Side) -> Int64[Tensor, " kept"]:
        """Return which tokens, counted over all texts, have a vector, in its order; on the CPU, as ``texts`` are."""
        return self._kept(texts, side)[0]

    def _kept(self, texts: Texts, side: Side) -> tuple[Int64[Tensor, " kept"], Texts]:
        """Return which tokens have a vector, with the ids of these tokens or of their words.

        The first token always has one, so that no text is without. All of it is on the CPU.
        """
        within = positions(texts.lengths)
        kept = torch.ones_like(texts.ids, dtype=torch.bool)
        if side == "document":
            kept = ~torch.isin(texts.ids, self.skipped)
        first = self.contract.first_tokens(side)
        kept = kept | (within == 0) if first is None else within < first
        ids = texts.ids
        if self.whole_words is not None:
            ids, in_words = self.whole_words(texts.ids, texts.lengths)
            kept = kept & in_words
        places = kept.nonzero()[:, 0]
        lengths = torch.bincount(text_of_token(texts.lengths)[places], minlength=len(texts))
        return places, Texts(ids[places], lengths)

    def _attended_in_check(self, lengths: Tensor) -> Tensor | None:
        hidden = self.contract.query_expansion and not self.contract.attend_to_expansion
        return (lengths // 2).clamp_min(1) if hidden else None


def skipped_ids(tokenizer: Any, words: tuple[str, ...]) -> list[int]:  # noqa: ANN401
    """Return the token ids of the words that are one token; others cannot be skipped.

    The same rule as PyLate's and sentence-transformers', so that an exported model keeps the same vectors.
    """
    ids = [tokenizer.convert_tokens_to_ids(word) for word in words]
    return [i for i in ids if i is not None and i != tokenizer.unk_token_id]
