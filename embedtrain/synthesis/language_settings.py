"""How a language model writes queries: the keys of the section ``language``."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, field_validator, model_validator

from embedtrain.encoding.language.settings import EndpointSettings
from embedtrain.precision import Precision
from embedtrain.section import Count, Section

Type = Literal["question", "keywords", "statement", "long", "abstract", "misleading"]
ABSTRACT: Type = "abstract"
MISLEADING: Type = "misleading"
"""Descriptions of what is told in a text, and such that almost fit: never queries, but negatives of their text."""
TYPES: dict[Type, float] = {"question": 0.5, "keywords": 0.25, "statement": 0.15, "long": 0.1}
SMALL_TYPES: dict[Type, float] = {"question": 1.0}
"""Of a model of less than a billion parameters: in a first look at one of 135 million, its questions were some, while
its keywords, claims and situations were parts of the text."""
Difficulty = Literal["plain", "expert", "novice"]
Words = tuple[Count, Count]
Probability = Annotated[float, Field(gt=0, le=1)]


class LanguageConfig(Section):
    """What a language model is asked to write for each chunk, and what it may cost."""

    format: Literal["text", "json"] = "text"
    """``text``: a request for each query. ``json``: one for all queries of a chunk, answered as JSON; for models of
    some seven billion parameters and more."""
    per_chunk: Count = 2
    """Queries asked for each chunk; the filters keep fewer."""
    types: dict[Type, NonNegativeFloat] | None = Field(default=None, min_length=1)
    """Shares of the kinds of query. Null is question 0.5, keywords 0.25, statement 0.15 and long 0.1; questions alone
    of a model known to have less than a billion parameters, whose others are of no use. Your own queries (``--like``)
    take the place of all. ``abstract`` describes what a text tells, ``misleading`` does so almost: of both are the rows
    of ``descriptions.jsonl``."""
    words: dict[Type, Words] = Field(
        default={
            "question": (5, 12),
            "keywords": (3, 6),
            "statement": (8, 20),
            "long": (15, 30),
            "abstract": (6, 20),
            "misleading": (6, 20),
        }
    )
    """Fewest and most words of each kind."""
    difficulty: dict[Difficulty, NonNegativeFloat] = Field(
        default={"plain": 0.6, "expert": 0.3, "novice": 0.1}, min_length=1
    )
    """Shares of those who ask."""
    language: Literal["keep"] | tuple[str, ...] = "keep"
    """``keep`` asks for queries in the language of the chunk; a list of ISO codes takes turns."""
    personas: Literal["draft"] | tuple[str, ...] = ()
    """Descriptions of people who search; ``draft`` lets the model think of twelve from titles. Small models copy them
    into the query."""
    examples: Annotated[int, Field(ge=0, le=8)] = 3
    """Queries shown in a prompt, yours where there are some, else ours."""
    first_temperature: NonNegativeFloat = 0.0
    """Of a chunk's first query; 0 takes the likeliest words."""
    temperature: NonNegativeFloat = 0.8
    """Of its other queries."""
    top_p: Probability = 0.95
    max_new_tokens: Count = 64
    """Of a query."""
    context: Count | None = None
    """Tokens of a prompt with its answer at most; null asks the model, and takes 4,096 of an address."""
    thinks: bool = False
    """Let a model that can think do so before it answers, for which it gets eight times the tokens."""
    precision: Precision = "auto"
    """Of the weights of a model of this process."""
    budget_tokens: Count | None = None
    """Tokens of prompts and answers after which no request is sent, over all runs into one output."""
    budget_money: PositiveFloat | None = None
    """The same in money; needs ``endpoint.price``."""
    budget_seconds: PositiveFloat | None = None
    """The same in seconds, of one run."""
    endpoint: EndpointSettings = EndpointSettings(concurrency=8, timeout_seconds=60)
    """How an address is used."""

    @field_validator("types", "difficulty")
    @classmethod
    def _has_some(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value is not None and not sum(value.values()):
            raise ValueError("must have a share above 0")
        return value

    @model_validator(mode="after")
    def _is_whole(self) -> "LanguageConfig":
        for name, (fewest, most) in self.words.items():
            if fewest > most:
                raise ValueError(f"words.{name} must not have more at least than at most")
        if lost := set(self.types or TYPES) - set(self.words):
            raise ValueError(f"words must name how long these are: {', '.join(sorted(lost))}")
        if self.budget_money is not None and self.endpoint.price is None:
            raise ValueError("budget_money needs endpoint.price, of a million tokens")
        return self
