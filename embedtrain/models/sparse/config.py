"""What a recipe says of a sparse model."""

from typing import Literal

from pydantic import model_validator

from embedtrain.contract.sparse_contract import (
    Activation,
    Code,
    PooledTokens,
    SparseContract,
    SparseHead,
    Winners,
)
from embedtrain.contract.texts import TextSide
from embedtrain.models.encoder import EncoderConfig
from embedtrain.models.sparse.query_weights import QueryWeightsConfig
from embedtrain.section import Count


class SparseTextSide(TextSide):
    """One side of a sparse model."""

    top_k: Count | None = None
    """Keep only so many entries of a text, the largest, in training as well: the gradient is that of the pruned
    vector. Null: as the folder says, else all."""


class SparseConfig(EncoderConfig):
    """A bi-encoder whose vectors are nearly all zeros (SPLADE). Null takes what the folder says, then defaults."""

    kind: Literal["sparse"]
    backbone: str
    """Hub id, local folder (transformers with a masked-language head, sentence-transformers' SparseEncoder; a dense
    model for ``head: code``), or ``package:NAME/FOLDER``."""
    query: SparseTextSide = SparseTextSide()
    """Length 64 unless the folder says otherwise."""
    document: SparseTextSide = SparseTextSide()
    """Length 256 unless the folder says otherwise."""
    head: SparseHead | None = None
    """``vocabulary``: the largest logit of the masked-language head for each word (SPLADE); ``winner_take_all``: the
    largest outputs of a wide layer for each token (UHD), for any backbone; ``token_weights``: a number for each token that
    the text has (BGE-M3, whose weights are read as ``sparse_linear.safetensors``), for any backbone; ``code``: the largest entries of a
    dictionary over the vectors of a dense model (CSR); null: as the folder says, else ``vocabulary``."""
    winners: Winners | None = None
    """The sizes of ``head: winner_take_all``; null: as the folder says, else the defaults."""
    code: Code | None = None
    """The sizes of ``head: code``; null: as the folder says, else the defaults."""
    freeze_backbone: bool | None = None
    """Train what stands on the backbone and leave the backbone as it is; null: with ``head: code`` and no ``lora``."""
    activation: Activation | None = None
    """``log1p`` (SPLADE) or ``log1p_twice`` (OpenSearch); null: as the folder says, else ``log1p``."""
    special_entries: Literal["keep", "drop"] | None = None
    """Whether special tokens may have weights as words; null: as the folder says, else ``keep``."""
    pooled_tokens: PooledTokens | None = None
    """Tokens whose logits count; null: as the folder says, else ``all`` of an encoder, ``without_special`` of a decoder."""
    echo: bool | None = None
    """Show each text twice and pool the second time, for causal backbones; null: as the folder says, else no."""
    query_weights: QueryWeightsConfig | None = None
    """Encode queries by no model: each distinct token has a weight (inference-free, SPLADE-doc); null: as the folder
    says, else the model encodes queries too."""

    start_entries: Count | None = None
    """Before the first step, lower the bias of all words alike until documents have so many entries on average: some
    heads, RoBERTa's among them, give every word a weight, and training then ends at nothing. Null leaves it."""

    @model_validator(mode="after")
    def _offered(self) -> "SparseConfig":
        if self.trust_remote_code:
            raise ValueError("trust_remote_code is not offered for sparse models: leave it out")
        wide, code = self.head in ("winner_take_all", "token_weights"), self.head == "code"
        if self.winners is not None and self.head != "winner_take_all":
            raise ValueError("winners are the sizes of head: winner_take_all: set it, or drop them")
        if self.code is not None and not code:
            raise ValueError("code are the sizes of head: code: set it, or drop them")
        if (wide or code) and (self.query_weights is not None or self.start_entries is not None):
            raise ValueError(
                f"{self.head} has no words that start with a weight: drop query_weights and start_entries"
            )
        if self.freeze_backbone and (not (wide or code) or self.lora is not None):
            raise ValueError(
                "freeze_backbone is for heads winner_take_all, token_weights and code, without lora: else nothing is trained"
            )
        if self.train is not None:
            raise ValueError("train is not offered for sparse models: leave it out")
        return self

    @model_validator(mode="after")
    def _applied(self) -> "SparseConfig":
        """Refuse what would have no effect, or would be lost."""
        for name in ("activation", "special_entries", "pooled_tokens"):
            usual = (None, SparseContract.model_fields[name].default)
            if (
                self.head in ("winner_take_all", "token_weights")
                and getattr(self, name) not in usual
            ):
                raise ValueError(f"{self.head} has no logits of words: drop {name}")
        if self.start_entries is not None and self.lora is not None:
            raise ValueError("start_entries moves the bias, which lora keeps as it is: drop one")
        return self
