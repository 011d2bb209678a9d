"""The contract of a sparse model: how a text becomes a weight for each word of a vocabulary, most of them 0."""

from typing import Literal

from pydantic import Field, NonNegativeInt, model_validator

from embedtrain.contract.long_inputs import LongInputs
from embedtrain.section import Count, Section
from embedtrain.types import Side

SparseHead = Literal["vocabulary", "winner_take_all", "token_weights", "code"]
Activation = Literal["log1p", "log1p_twice"]
PooledTokens = Literal["all", "without_first", "without_special"]


class Winners(Section):
    """A very wide layer, of whose outputs each token keeps the largest (UHD)."""

    entries: Count = 16_384
    """Outputs of the layer: how long a vector is, or one of its buckets."""
    winners: Count = 8
    """Outputs that each token keeps; the number of entries of a text grows with it."""
    layers: tuple[Count, ...] = ()
    """Layers of the backbone, counted from 1, that have such a layer too, besides the last: more buckets, ascending."""
    buckets: Literal["merged", "concatenated"] = "merged"
    """``merged`` keeps the largest of all layers for each entry; ``concatenated`` gives each layer entries of its own, the
    last layer's behind the others, and scores add up over them."""
    binary: bool = False
    """Entries are 1 or 0, for search by bits; trained straight through."""

    @model_validator(mode="after")
    def _few_win(self) -> "Winners":
        if self.winners > self.entries:
            raise ValueError(f"{self.winners} winners are more than {self.entries} entries")
        if self.buckets == "concatenated" and not self.layers:
            raise ValueError("one layer makes one bucket: name further layers, or drop buckets")
        return self

    @property
    def dim(self) -> int:
        """How long a vector is."""
        return self.entries * (len(self.layers) + 1 if self.buckets == "concatenated" else 1)


class Code(Section):
    """A dictionary over the vectors of a dense model, of which each text keeps a few entries (CSR)."""

    entries: Count = 2048
    """Entries of the dictionary: how long a vector is."""
    kept: Count = 32
    """Entries that each text keeps, the largest; fewer where fewer are above 0."""

    @model_validator(mode="after")
    def _few_are_kept(self) -> "Code":
        if self.kept > self.entries:
            raise ValueError(f"{self.kept} kept are more than {self.entries} entries")
        return self


class SparseContract(Section):
    """The resolved contract of a model whose vectors are nearly all zeros."""

    similarity: Literal["dot"] = "dot"
    """Inner products only: the length of a vector carries the weight of its terms."""
    query_prompt: str = ""
    document_prompt: str = ""
    query_length: Count
    """Tokens of a query, special tokens included."""
    document_length: Count
    """Tokens of a document, special tokens included."""
    head: SparseHead = "vocabulary"
    """What makes the entries: the masked-language head (SPLADE), the winners of a wide layer (UHD), a number for each
    token of the text (BGE-M3), or a dictionary over a dense vector (CSR)."""
    activation: Activation = "log1p"
    """What becomes of a largest logit that is positive: ``log1p`` (SPLADE), or that once more (OpenSearch)."""
    winners: Winners | None = Field(default=None, exclude_if=lambda value: value is None)
    """The sizes of ``winner_take_all``."""
    code: Code | None = Field(default=None, exclude_if=lambda value: value is None)
    """The sizes of ``code``."""
    special_entries: Literal["keep", "drop"] = "keep"
    """Whether words may get weights that are special tokens of the tokenizer, as published models let them."""
    pooled_tokens: PooledTokens = "all"
    """Whose logits count: those of special tokens too, or not; a decoder's first token says the same of every text."""
    echo: bool = False
    """Show each text twice and pool the second time, whose tokens have seen all of it."""
    static_queries: bool = False
    """Queries are encoded by no model: each distinct token has a weight of its own."""
    query_top_k: Count | None = None
    """Keep only so many entries of a query, the largest; null keeps all."""
    document_top_k: Count | None = None
    """Keep only so many entries of a document, the largest; null keeps all."""
    unused_entries: NonNegativeInt = 0
    """Entries beyond the tokenizer, which stand for no word and are always 0: matrices are often filled up."""
    long_inputs: LongInputs | None = Field(default=None, exclude_if=lambda value: value is None)
    """How positions go on behind those that the model was trained on, where they do."""

    @property
    def is_portable(self) -> bool:
        """Whether sentence-transformers can express it: it computes the same vectors."""
        if self.static_queries and self.unused_entries:
            return False  # readers give queries as many entries as the tokenizer has tokens
        positions = self.long_inputs is not None and not self.long_inputs.in_weights
        headed = self.head in ("winner_take_all", "token_weights")
        own = headed or self.echo or self.pooled_tokens != "all" or positions
        return not own and self.query_top_k == self.document_top_k

    def prompt(self, side: Side) -> str:
        """Return the text put before every text of ``side``."""
        return self.query_prompt if side == "query" else self.document_prompt

    def length(self, side: Side) -> int:
        """Return the number of tokens kept of a text of ``side``."""
        return self.query_length if side == "query" else self.document_length

    def top_k(self, side: Side) -> int | None:
        """Return how many entries are kept of a text of ``side``; None for all."""
        return self.query_top_k if side == "query" else self.document_top_k
