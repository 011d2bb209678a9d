"""What a source of training data is: its section of a recipe, its rows, and its identity."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from pydantic import PositiveFloat, model_validator

from embedtrain.data.pair_making import PairMaking
from embedtrain.errors import UserError
from embedtrain.section import Count, Section

Format = Literal["python_docs", "jsonl", "csv", "tsv", "parquet", "beir", "datasets", "function"]
Progress = Callable[[int, int], None]
SPAN: Literal["span"] = "span"
SOURCE: Literal["source"] = "source"
"""Rules that ``guide_text`` may name in place of a column; :mod:`embedtrain.data.guide_texts` follows them."""


def text_id(text: str) -> int:
    """Return the 63-bit id of a text: equal texts have equal ids, on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True)
class Example:
    """One query with the documents that answer it and, where known, documents that do not.

    ``scores`` and ``document_ids`` follow the positives, then the negatives; each is empty where the
    source has none. ``query_id`` is empty where the source has none. ``teacher_gram`` holds the cosines between
    the documents as a teacher sees them beside the query, in the order of :mod:`embedtrain.data.gram`.
    ``not_negatives`` are further documents that may answer the query: they are shown to no model, and where another
    row brings one into the same batch it is no negative of this query. ``guide_query`` is what a guide reads in
    place of the query, empty where it reads the query. ``document`` is the document whose chunks the documents are:
    queries of one share them.
    """

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    query_id: str = ""
    document_ids: tuple[str, ...] = ()
    teacher_gram: tuple[float, ...] = ()
    not_negatives: tuple[str, ...] = ()
    guide_query: str = ""
    document: str = ""


class Columns(Section):
    """Names of the columns that hold the parts of an example; left out, common names are looked for."""

    query: str | None = None
    """One text. Looked for: query, anchor, question, sentence1."""
    positive: tuple[str, ...] | str | None = None
    """A text or a list of texts; several columns are joined. Looked for: positive, positives, pos,
    document, passage, answer, positive_passages, sentence2."""
    text: str | None = None
    """The only text of a row, in place of query and positive, for objectives that compare no two texts: its query
    is its positive too. ``objective.sides`` says as which of them it is encoded."""
    negatives: tuple[str, ...] | str | None = None
    """A text or a list of texts; several columns are joined. Looked for: negatives, negative, neg,
    negative_passages, and negative_1, negative_2, ..."""
    scores: tuple[str, ...] | str | None = None
    """Teacher scores of the positives, then of the negatives. Looked for: scores, teacher_scores,
    pos_scores with neg_scores, and score where the texts are sentence1 and sentence2."""
    label: str | None = None
    """A class instead of scores: a number, or a text, which is numbered in the order of its first row. It
    becomes the score of all of the row's documents."""
    classes: tuple[str, ...] = ()
    """Names that ``label`` may have, in the order of their numbers; empty numbers them as they come."""
    id: str | None = None
    """Id of the query. Looked for: query_id, id, _id."""
    history: str | None = None
    """The turns of a conversation before the query, texts or ``{role: ..., text: ...}``, oldest first; they are put
    before it, a line for each. Null: the query is all that is asked."""
    marks_query: bool = False
    """Make the query the span of its conversation, whose tokens alone a model with ``spans`` pools."""
    guide_text: str | None = None
    """What the recipe's ``guide`` reads in place of a row's texts: ``span``, of a marked text its span alone;
    ``source``, the query, as a query, for each document too (a translation then learns the vector of what it
    translates); or a column whose text it reads in place of the query. Null: the texts themselves."""

    @model_validator(mode="after")
    def _one_text_or_two(self) -> "Columns":
        if self.text is not None and (self.query or self.positive):
            raise ValueError("columns.text is query and positive in one: drop query and positive")
        if self.marks_query and self.history is None:
            raise ValueError("columns.marks_query is of a conversation: name its history")
        return self


class SourceConfig(PairMaking):
    """One source of training data."""

    path: str
    """``python_docs``, a file (.jsonl, .csv, .tsv, each also with .gz; .parquet), a glob of such files, a
    folder of Parquet files, a BEIR folder, a folder saved by ``datasets``, a Hub id, or a function of your own
    as ``package.module:function``. Beside ``pairs`` a file, a glob or a folder of documents: those rows, texts,
    Markdown, HTML or PDF."""
    split: str = "train"
    """Split of a BEIR folder, of ``python_docs`` or of a Hub data set; a function is given it; plain files have
    no splits."""
    name: str | None = None
    """Configuration of a Hub data set."""
    format: Format | None = None
    """How to read ``path``; found from the path if left out."""
    columns: Columns = Columns()
    """Names of the columns, where they are not common ones."""
    judged_negatives: bool = False
    """BEIR folders: documents judged 0 or less become negatives."""
    weight: PositiveFloat | None = None
    """Share of this source in a mixture, relative to the other sources' weights."""
    limit: Count | None = None
    """Keep the first rows only; of ``python_docs`` so many of all packages."""
    score_range: tuple[float, float] | None = None
    """Lowest and highest score of the data, which become 0 and 1; null leaves scores as they are."""

    @model_validator(mode="after")
    def _scores_ascend(self) -> "SourceConfig":
        if self.score_range is not None and self.score_range[0] >= self.score_range[1]:
            raise ValueError("score_range is the lowest, then the highest score")
        if self.columns.label is not None and (self.columns.scores or self.score_range):
            raise ValueError("a label takes the place of scores: drop scores and score_range")
        return self

    @model_validator(mode="after")
    def _reads_what_it_says(self) -> "SourceConfig":
        if self.pairs in (None, "pivot"):
            return self
        for key, default in (("columns", Columns()), ("format", None), ("judged_negatives", False)):
            if getattr(self, key) != default:
                raise ValueError(f"{key} means nothing beside pairs: {self.pairs}: drop it")
        return self


@dataclass(frozen=True)
class Source:
    """An opened source: where it is, what its content hashes to, and a way to stream it.

    ``fingerprint`` changes with the content and with every setting that changes the examples; where the
    data lie and how much they weigh do not enter it. ``length`` is the number of examples, where it is
    known without reading; ``num_lines``, the lines of its files, is about that. ``stream`` starts from the first example at every call. ``held_out`` counts the
    rows that were taken out to measure on, by section of the recipe.
    """

    config: SourceConfig
    place: str
    fingerprint: str
    stream: Callable[[], Iterator[Example]]
    length: int | None = None
    num_lines: int | None = None
    held_out: Mapping[str, int] = field(default_factory=dict)

    def examples(self) -> Iterator[Example]:
        """Yield the examples in their fixed order; raise where there is none."""
        found = False
        for example in islice(self.stream(), self.config.limit):
            found = True
            yield example
        if not found:
            raise UserError(
                self.place, "holds no example", cure="Give a file with at least one row"
            )


def fingerprint_of(config: SourceConfig, content: str) -> str:
    """Hash what the data say (``content``) together with how the configuration reads them."""
    # What a step does with the rows is not what they are: a subclass may say it (embedtrain.training.sources).
    unused: dict[str, Any] = dict.fromkeys(
        (
            "path",
            "weight",
            "objective",
            "batch_size",
            "order",
            "instruction",
            "adapter",
            "negatives",
            "document_length",
        ),
        True,
    )
    if config.score_range is None:  # sources from before it was known keep their hash
        unused["score_range"] = True
    if config.pairs is None:
        unused |= dict.fromkeys(PairMaking.model_fields, True)
    unset = {
        name
        for name in ("text", "label", "classes", "guide_text", "history", "marks_query")
        if not getattr(config.columns, name)
    }
    if unset:
        unused["columns"] = unset
    settings = config.model_dump_json(exclude=unused)
    return hashlib.sha256(f"{content}\n{settings}".encode()).hexdigest()


def limited(length: int, config: SourceConfig) -> int:
    """Return the number of examples left of ``length`` by ``config.limit``."""
    return length if config.limit is None else min(length, config.limit)
