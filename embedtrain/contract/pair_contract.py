"""The contract of a cross-encoder: how a query and a document become one text, and its states a score."""

from typing import ClassVar, Literal

from embedtrain.section import Count, Section
from embedtrain.types import Side

PairScoring = Literal["classifier", "yes_no"]
"""``classifier``: the head that the backbone's family has for classes, with one output. ``yes_no``: a language model's
log-odds of two answers behind the pair."""


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
    answers: tuple[int, ...] = ()
    """The entries of the vocabulary for yes and no (``yes_no``); without no the logit of yes is the score."""
    space: str = ""
    """Put before a text where the template has a space: byte-level vocabularies write it into a word's first token."""
    classes: tuple[str, ...] = ()
    """Names of the classes that it tells apart; empty for one score."""
    says_probability: bool = False
    """Whether the sigmoid of a score is a probability; readers of exports apply it then."""

    long_inputs: ClassVar[None] = None
    """Positions are the backbone's own."""

    def prompt(self, side: Side) -> str:
        """Return the text put before every text of ``side``; the template is joined as tokens."""
        return self.space if f" {{{side}}}" in (self.template or "") else ""

    def length(self, side: Side) -> int:
        """Return the number of tokens kept of a text of ``side``, if the other is short."""
        return self.query_length if side == "query" else self.pair_length
