"""The contract of a cross-encoder: how a query and a document become one text, and its states a score."""

from typing import ClassVar, Literal

from embedtrain.section import Count, Section
from embedtrain.types import Side

PairScoring = Literal["classifier"]
"""``classifier``: the head that the backbone's family has for classes, with one output."""


class PairContract(Section):
    """The resolved contract of a cross-encoder."""

    scoring: PairScoring
    """What makes a score of the token states."""
    query_length: Count
    """Tokens of a query; its end is cut."""
    pair_length: Count
    """Tokens of a pair with all that stands around both texts; the document's end is cut."""
    template: str | None = None
    """What stands around ``{query}`` and ``{document}``; null: what the tokenizer itself puts there."""
    says_probability: bool = False
    """Whether the sigmoid of a score is a probability; readers of exports apply it then."""

    long_inputs: ClassVar[None] = None
    """Positions are the backbone's own."""

    def prompt(self, side: Side) -> str:  # noqa: ARG002 - as of the other contracts
        """Return the text put before every text of ``side``: none, texts are joined as tokens."""
        return ""

    def length(self, side: Side) -> int:
        """Return the number of tokens kept of a text of ``side``, if the other is short."""
        return self.query_length if side == "query" else self.pair_length
