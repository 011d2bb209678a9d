"""The contract of a cross-encoder: how a query and a document become one text, and its states a score."""

from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal, TypeVar

from pydantic import Field

from embedtrain.errors import UserError
from embedtrain.section import Count, Section
from embedtrain.types import Side

Prompts = TypeVar("Prompts")
PairScoring = Literal["classifier", "yes_no"]
"""``classifier``: the head that the backbone's family has for classes, with one output. ``yes_no``: a language model's
log-odds of two answers behind the pair, or of an encoder-decoder's to it."""

QUERY_SHARE = 0.75
"""Of the tokens of a pair, for models whose folder says nothing of queries."""


def named_instruction(
    known: Mapping[str, Prompts], name: str, besides: Iterable[str] = ()
) -> Prompts:
    """Return what an instruction puts before texts; names ``besides`` would have been something else.

    Raises:
        UserError: If the model knows no instruction of that name.
    """
    if name not in known:
        raise UserError(
            "--instruction",
            "is none that the model knows",
            got=name,
            cure=f"Choose from: {', '.join(sorted({*known, *besides})) or 'none'}",
        )
    return known[name]


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
    answer_start: int | None = Field(default=None, exclude_if=lambda value: value is None)
    """The entry that an encoder-decoder's answer starts with; null: the answer stands behind the pair."""
    space: str = ""
    """Put before a text where the template has a space: byte-level vocabularies write it into a word's first token."""
    classes: tuple[str, ...] = ()
    """Names of the classes that it tells apart; empty for one score."""
    says_probability: bool = False
    """Whether the sigmoid of a score is a probability; readers of exports apply it then."""

    instructions: dict[str, str] = Field(default={}, exclude_if=lambda value: not value)
    """What each instruction puts before its queries, by name; documents get nothing."""
    query_prompt: str = Field(default="", exclude_if=lambda value: not value)
    """Put before every query: that of the instruction in use."""

    long_inputs: ClassVar[None] = None
    """Positions are the backbone's own."""

    def prompt(self, side: Side) -> str:
        """Return the text put before every text of ``side``; the template is joined as tokens."""
        space = self.space if f" {{{side}}}" in (self.template or "") else ""
        return space + (self.query_prompt if side == "query" else "")

    def under(self, instruction: str | None) -> "PairContract":
        """Return the contract with the prompt of an instruction; None changes nothing.

        Raises:
            UserError: If the model knows no instruction of that name.
        """
        if instruction is None:
            return self
        prompt = named_instruction(self.instructions, instruction)
        return self.model_copy(update={"query_prompt": prompt})

    def length(self, side: Side) -> int:
        """Return the number of tokens kept of a text of ``side``, if the other is short."""
        return self.query_length if side == "query" else self.pair_length
