"""What a source that makes pairs of texts without labels is told: which pairs, and of what."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, model_validator

from embedtrain.section import Count, Section

Pairs = Literal[
    "neighbours", "crops", "title", "headings", "position", "depth", "pivot", "mentions", "hashtags"
]
Unit = Literal["sentence", "paragraph", "line"]
KEYS: dict[str, frozenset[str]] = {
    "window": frozenset({"neighbours"}),
    "unit": frozenset({"neighbours", "position", "depth"}),
    "same_document": frozenset({"neighbours", "crops"}),
    "min_words": frozenset({"neighbours", "position", "depth", "crops"}),
    "draws": frozenset(
        {"neighbours", "position", "depth", "crops", "headings", "pivot", "mentions"}
    ),
    "part_of": frozenset(
        {"neighbours", "position", "depth", "crops", "title", "headings", "mentions"}
    ),
    "names": frozenset({"mentions"}),
    "mask_ratio": frozenset({"mentions"}),
}
"""Which pairs a key has a meaning for."""


class PairMaking(Section):
    """How a source makes its rows of texts that nobody labelled; without ``pairs`` rows are read as they stand.

    What is drawn follows from ``draw_seed`` and the document alone, so that rows are the same in every epoch, for a
    guide and for mining, and a second run finds them tokenised.
    """

    pairs: Pairs | None = None
    """Make rows of unlabelled documents. ``neighbours``: a sentence, and those around it. ``crops``: two spans of a
    document. ``title``: a title, and the text without it. ``headings``: the headings over a section, and its text.
    ``position``: a unit and its place in its document, first to last, as a class of five. ``depth``: a unit and
    the number of headings that it stands under, at most four, as its class. ``pivot``: of rows of two languages, two texts
    with one translation, which paraphrase each other. ``mentions``: a known name in its context,
    its span marked, and its entity as its class. ``hashtags``: short texts that share a tag, without it."""
    window: Count = 1
    """``neighbours``: positives lie so many units away at most, on either side; each step shows
    ``data.num_positives`` of them."""
    unit: Unit = "sentence"
    """``neighbours``, ``position``, ``depth``: of what. Sentences end by a rule (a full stop and a space, or a blank line); give ``line``
    where each line is one."""
    min_words: Count | None = None
    """``neighbours``, ``position``, ``depth``: a shorter unit is joined with its next one; null is 5, and 1 for lines. ``crops``: a shorter
    document gives none; null is 24."""
    draws: Count | None = None
    """Rows of a document at most (of a pivot, pairs): the others are left out by chance. Null is all, of crops 1, of a
    pivot 4."""
    same_document: Literal["ignore", "negative"] = "ignore"
    """What the other parts of a query's document are in its batch: no candidates, or negatives (Quick-Thought).
    What is within the window never is one."""
    part_of: str | None = None
    """Column that says which document a row is a part of: following rows with one value are one document. Null takes
    each row for a document."""
    names: str | None = None
    """``mentions``: a file with a row for each entity, ``{"entity": "Q1", "names": ["aspirin", ...]}``. A name of two
    entities is passed over."""
    mask_ratio: Annotated[float, Field(ge=0, le=1)] = 0.2
    """``mentions``: share of the rows whose entity's names are hidden, as ``[MASK]``."""
    draw_seed: NonNegativeInt = 0
    """Changes what is drawn."""

    @model_validator(mode="after")
    def _has_names(self) -> "PairMaking":
        if self.pairs == "mentions" and self.names is None:
            raise ValueError(
                "pairs: mentions needs names: a file of entities and what they are called"
            )
        return self

    @model_validator(mode="after")
    def _has_a_meaning(self) -> "PairMaking":
        own = {key: field.default for key, field in PairMaking.model_fields.items()}
        for key in (key for key, default in own.items() if getattr(self, key) != default):
            if self.pairs is None:
                raise ValueError(f"{key} means something beside pairs only: name them or drop it")
            if self.pairs not in KEYS.get(key, {self.pairs}):
                known = ", ".join(sorted(KEYS[key]))
                raise ValueError(f"{key} means nothing to pairs: {self.pairs}; it is for {known}")
        return self
