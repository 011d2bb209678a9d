"""The section ``model:`` of a recipe, where a text has several vectors."""

from typing import Literal

from pydantic import model_validator

from embedtrain.contract.late_contract import TokenScorerConfig
from embedtrain.contract.texts import TextSide
from embedtrain.models.encoder import EncoderConfig
from embedtrain.section import Count
from embedtrain.types import Similarity


class LateInteractionConfig(EncoderConfig):
    """A bi-encoder with several vectors per text (ColBERT). Null takes what the folder says, then defaults."""

    kind: Literal["late_interaction"]
    backbone: str
    """Hub id, local folder (transformers, PyLate, sentence-transformers, Stanford ColBERT), or
    ``package:NAME/FOLDER``."""
    dim: Count | None = None
    """Dimension of a vector; null: as the folder says, else 128. Smaller than the folder's projection keeps
    its first dimensions, which suits models trained with Matryoshka prefixes."""
    head_dims: tuple[Count, ...] = ()
    """Train one projection per size (jina-colbert-v2's Matryoshka); ``dim`` chooses which one is used."""
    similarity: Similarity | None = None
    """``cosine`` normalises vectors (default); ``dot`` lets their length carry weight (ColBERTer)."""
    query: TextSide = TextSide()
    """Its prompt follows the marker; length 32 unless the folder says otherwise."""
    document: TextSide = TextSide()
    """Length 180 unless the folder says otherwise."""
    query_marker: str | None = None
    """One token put before queries; null: as the folder says, else ``"[Q] "``. Empty for none."""
    document_marker: str | None = None
    """One token put before documents; null: as the folder says, else ``"[D] "``."""
    query_expansion: bool | None = None
    """Fill queries up with mask tokens; null: as the folder says, else where there is a mask token."""
    attend_to_expansion: bool | None = None
    """Let query tokens look at the mask tokens; null: as the folder says, else no."""
    skiplist: tuple[str, ...] | None = None
    """Words whose vectors documents do not keep; null: as the folder says, else punctuation."""
    query_tokens: Count | None = None
    """Keep the vectors of the first tokens of a query only; 1 with ``document_tokens: 8`` is ME-BERT."""
    document_tokens: Count | None = None
    """Keep the vectors of the first tokens of a document only."""
    pool_factor: Count = 1
    """Merge similar document tokens until one in so many is left, in training as well."""
    pool_factors: tuple[Count, ...] = ()
    """Train for several: each document gets one of these, drawn from its tokens, so that chunks and ranks agree."""
    binary: bool = False
    """Documents keep only the signs of their vectors; trained straight through."""
    bit_scale: bool = False
    """With ``binary``: learn the size that a bit of each dimension stands for; queries carry it (BTR)."""
    recovery: bool = False
    """With ``binary``: train a map that gives vectors back from bits, for the objective ``recovery``; exports leave it out."""
    words: bool = False
    """One vector per distinct whole word (ColBERTer). Needs ``query_expansion: false``."""
    gate: bool = False
    """Learn which words documents drop; train with the ``colberter`` objective."""
    exact_match: bool = False
    """Only equal words are similar (Uni-ColBERTer, with ``dim: 1`` and ``word_dim``)."""
    word_dim: Count | None = None
    """Dimension in which words are averaged and gated before a layer reduces them to ``dim``."""
    token_scorer: TokenScorerConfig | None = None
    """Learn which tokens of a document keep their vectors (Nugget); null: as the folder says, else all do."""
    cls_dim: Count | None = None
    """Add a vector of the whole text, of the first token, with a learned weight (ColBERTer)."""

    @model_validator(mode="after")
    def _parts_fit(self) -> "LateInteractionConfig":
        if (self.gate or self.exact_match) and not self.words:
            raise ValueError("gate and exact_match need words: true")
        if self.words and self.query_expansion:
            raise ValueError("words need query_expansion: false: mask tokens are no words")
        if self.words and self.similarity == "cosine":
            raise ValueError("words need similarity: dot: their length is what the gate learns")
        if self.words and (self.pool_factor > 1 or self.binary):
            raise ValueError(
                "words are neither pooled nor made binary: leave pool_factor and binary"
            )
        if self.pool_factors and (self.words or self.token_scorer or self.pool_factor > 1):
            raise ValueError("pool_factors goes with none of words, token_scorer and pool_factor")
        if self.token_scorer and (self.head_dims or self.words or self.binary):
            raise ValueError("token_scorer goes with none of head_dims, words and binary")
        if self.token_scorer and self.pool_factor > 1:
            raise ValueError(
                "token_scorer and pool_factor keep fewer vectors in two ways: drop one"
            )
        if self.head_dims and (self.words or (self.dim and self.dim not in self.head_dims)):
            raise ValueError("dim must be one of head_dims, which words do not offer")
        return self

    @model_validator(mode="after")
    def _bits_fit(self) -> "LateInteractionConfig":
        for key in ("bit_scale", "recovery"):
            if getattr(self, key) and (not self.binary or self.head_dims):
                raise ValueError(f"{key} is of binary: true, without head_dims")
        return self
