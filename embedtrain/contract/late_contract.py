"""The contract of a model with several vectors per text."""

from pydantic import Field, NonNegativeFloat, model_validator

from embedtrain.contract.long_inputs import LongInputs
from embedtrain.contract.stored import StoredOutputs
from embedtrain.section import Count, Section
from embedtrain.types import Side, Similarity


class TokenScorerConfig(Section):
    """Keep the vectors of so many tokens of a document, those that a learned score finds best (Nugget)."""

    keep_ratio: float = Field(default=0.25, gt=0, le=1)
    """Share of a document's tokens that stay, special tokens but the first left out; rounded up."""
    layer: Count | None = None
    """Whose states are scored, counted from 1; null: those of the last."""
    noise: NonNegativeFloat = 1.0
    """Scale of the Gumbel noise on the scores while training, by which other tokens are tried; 0 is none."""


class LateInteractionContract(Section):
    """The resolved contract of a model with several vectors per text."""

    similarity: Similarity
    """``cosine`` normalises every vector, ``dot`` leaves them; texts are compared by MaxSim."""
    query_prompt: str
    """Marker and prompt of a query, such as ``"[Q] "``; a marker is one token."""
    document_prompt: str
    query_length: Count
    """Tokens of a query, special tokens and expansion included."""
    document_length: Count
    markers: tuple[str, ...] = ()
    """Texts at the start of the prompts that the tokenizer must keep as one token."""
    query_expansion: bool = True
    """Fill queries up to their length with mask tokens, which the model turns into further terms."""
    attend_to_expansion: bool = False
    """Let other tokens look at the expansion."""
    skiplist: tuple[str, ...] = ()
    """Words, usually punctuation, whose vectors documents do not keep."""
    query_tokens: Count | None = None
    """Keep only so many vectors of a query, from its first token; null keeps all."""
    document_tokens: Count | None = None
    """Keep only so many vectors of a document, from its first token (ME-BERT); null keeps all."""
    dim: Count = 128
    """Dimension of a vector."""
    pool_factor: Count = 1
    """Merge similar document tokens until one in so many is left."""
    binary: bool = False
    """Documents keep only the signs of their vectors, scaled to length 1."""
    bit_scale: bool = Field(default=False, exclude_if=lambda value: not value)
    """Each dimension of a sign stands for a learned size, by which queries are multiplied."""
    words: bool = False
    """One vector per distinct whole word instead of one per token (ColBERTer)."""
    gate: bool = False
    """Documents drop the words that a learned gate closes."""
    exact_match: bool = False
    """Only equal words are similar; with ``dim: 1`` a learned lexical index (Uni-ColBERTer)."""
    word_dim: Count | None = None
    """Dimension of the vectors that words are averaged and gated in, where ``dim`` is smaller."""
    cls_dim: Count | None = None
    """Add the inner product of one vector per text, from the first token, to the score."""
    token_scorer: TokenScorerConfig | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    """A learned score of tokens, by which some of a document keep a vector, or none."""
    long_inputs: LongInputs | None = Field(default=None, exclude_if=lambda value: value is None)
    """How positions go on behind those that the model was trained on, where they do."""
    outputs: StoredOutputs | None = Field(default=None, exclude_if=lambda value: value is None)
    """What its vectors were trained to be stored as, where they were."""

    @model_validator(mode="after")
    def _fits_together(self) -> "LateInteractionContract":
        if len(self.markers) not in (0, 2):
            raise ValueError("markers are two, of queries and of documents, or none")
        if self.words and (self.pool_factor > 1 or self.binary):
            raise ValueError("words are neither pooled nor made binary")
        if self.token_scorer and (self.words or self.binary or self.pool_factor > 1):
            raise ValueError("token_scorer goes with none of words, binary and pool_factor")
        return self

    @property
    def is_portable(self) -> bool:
        """Whether PyLate and sentence-transformers can express it: they compute the same vectors."""
        own = (self.words, self.gate, self.exact_match, self.binary, self.cls_dim, self.word_dim)
        first = (self.query_tokens, self.document_tokens)
        positions = self.long_inputs is not None and not self.long_inputs.in_weights
        return (
            not any((*own, *first, positions, self.token_scorer))
            and self.pool_factor == 1
            and self.similarity == "cosine"
        )

    def prompt(self, side: Side) -> str:
        """Return the text put before every text of ``side``."""
        return self.query_prompt if side == "query" else self.document_prompt

    def length(self, side: Side) -> int:
        """Return the number of tokens kept of a text of ``side``."""
        return self.query_length if side == "query" else self.document_length

    def first_tokens(self, side: Side) -> int | None:
        """Return how many tokens of a text keep a vector; None for all."""
        return self.query_tokens if side == "query" else self.document_tokens
