"""A row with named columns -> :class:`Example`: finds the columns, checks every value."""

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from embedtrain.contract.spans import mark
from embedtrain.data.examples import SOURCE, SPAN, Columns, Example
from embedtrain.data.gram import num_pairs
from embedtrain.data.readers.chunk_rows import chunk_examples, is_chunk_row
from embedtrain.data.readers.history import with_history
from embedtrain.errors import UserError

QUERY_NAMES = ("query", "anchor", "question", "sentence1")
POSITIVE_NAMES = (
    "positive", "positives", "pos", "document", "passage", "answer", "positive_passages",
    "sentence2",
)  # fmt: skip
NEGATIVE_NAMES = ("negatives", "negative", "neg", "negative_passages")
NUMBERED_NEGATIVE = re.compile(r"(?:negative|neg)_(\d+)")
SCORE_NAMES = (("scores",), ("teacher_scores",), ("pos_scores", "neg_scores"))
LARGEST_CLASS = 2**24
"""From here on float32, in which scores are kept, does not tell whole numbers apart."""
ID_NAMES = ("query_id", "id", "_id")
GRAM_NAME = "teacher_gram"
MASKED_NAME = "not_negatives"

Row = Mapping[str, object]


@dataclass(frozen=True)
class ChosenColumns:
    """The columns of one row that hold each part; a part that is absent has no column."""

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    scores: tuple[str, ...]
    id: str | None
    label: str | None = None
    guide: str | None = None
    history: str | None = None


def choose_columns(columns: Columns, names: tuple[str, ...], place: str) -> ChosenColumns:
    """Find the columns of a row whose column names are ``names``."""

    def required(
        part: str, wanted: tuple[str, ...] | str | None, known: tuple[str, ...]
    ) -> tuple[str, ...]:
        given = _several(wanted)
        found = given or tuple(name for name in known if name in names)[:1]
        missing = [name for name in found if name not in names]
        if missing or not found:
            problem = (
                f"has no column {missing[0]!r}" if missing else f"has no column for the {part}"
            )
            cure = f"Name it in the recipe: columns: {{{part}: ...}}"
            raise UserError(place, problem, got=list(names), cure=cure)
        return found

    def optional(
        part: str, wanted: tuple[str, ...] | str | None, known: tuple[str, ...]
    ) -> tuple[str, ...]:
        if wanted is None and not any(name in names for name in known):
            return ()
        return required(part, wanted, known)

    numbered = sorted(
        (int(match[1]), match[0]) for name in names if (match := NUMBERED_NEGATIVE.fullmatch(name))
    )
    negatives = optional("negatives", columns.negatives, NEGATIVE_NAMES)
    query = required("query", columns.query or columns.text, QUERY_NAMES)[0]
    positive = required("positive", columns.positive or columns.text, POSITIVE_NAMES)
    known_scores = (*SCORE_NAMES, ("score",)) if positive == ("sentence2",) else SCORE_NAMES
    scores: tuple[str, ...] = next(
        (group for group in known_scores if all(name in names for name in group)), ()
    )
    label = required("label", columns.label, ())[0] if columns.label else None
    if columns.scores:
        scores = required("scores", columns.scores, ())
    return ChosenColumns(
        query=query,
        positives=positive,
        negatives=negatives if columns.negatives else (*negatives, *(name for _, name in numbered)),
        scores=() if label else scores,
        label=label,
        id=(optional("id", columns.id, ID_NAMES) or (None,))[0],
        history=required("history", columns.history, ())[0] if columns.history else None,
        guide=_guide_column(columns.guide_text, query, names, place),
    )


def _guide_column(wanted: str | None, query: str, names: tuple[str, ...], place: str) -> str | None:
    """Return the column that a guide reads in place of the query, if the rule names one."""
    if wanted in (None, SPAN, SOURCE):
        return None
    if wanted == query:
        cure = "Write source, if it shall read this for the documents too"
        raise UserError(f"{place} guide_text", "is the column of the query", got=wanted, cure=cure)
    if wanted not in names:
        cure = "Name a column of the row, span or source"
        raise UserError(place, f"has no column {wanted!r}", got=list(names), cure=cure)
    return wanted


def _several(wanted: tuple[str, ...] | str | None) -> tuple[str, ...]:
    return () if wanted is None else (wanted,) if isinstance(wanted, str) else wanted


@dataclass(frozen=True)
class RowReader:
    """Turns the rows of one source into examples.

    ``only_text`` is for CSV, where a number is written as a text and nothing as an empty one; ``score_range``
    is that of :class:`embedtrain.data.examples.SourceConfig`.
    """

    columns: Columns
    only_text: bool = False
    score_range: tuple[float, float] | None = None
    _classes: dict[str, int] = field(default_factory=dict)
    _chosen: dict[tuple[str, ...], ChosenColumns] = field(default_factory=dict)

    def chosen(self, names: tuple[str, ...], place: str) -> ChosenColumns:
        """Find the columns once for each set of column names: rows of JSON may differ."""
        if names not in self._chosen:
            self._chosen[names] = choose_columns(self.columns, names, place)
        return self._chosen[names]

    def examples(self, row: Row, place: str) -> Iterator[Example]:
        """Check one row and yield what it says: one example, or one for each query of a document of chunks."""
        if self.columns.query is None and is_chunk_row(row):
            yield from chunk_examples(row, place)
        else:
            yield self.read(row, place)

    def read(self, row: Row, place: str) -> Example:
        """Check one row; ``place`` is where it stands, for the error."""
        chosen = self.chosen(tuple(row), place)
        positives = self._texts(row, chosen.positives, place)
        negatives = self._texts(row, chosen.negatives, place)
        if not positives:
            cure = "Give at least one positive or drop the row"
            raise UserError(
                place, "has a query without positives", got=row[chosen.query], cure=cure
            )
        scores = [
            self._score(item, column, place) for column, item in self._items(row, chosen.scores)
        ]
        if chosen.label is not None:
            scores = [self._class(row[chosen.label], f"{place} {chosen.label}")]
            scores *= len(positives) + len(negatives)
        if scores and len(scores) != len(positives) + len(negatives):
            raise UserError(
                place,
                f"has {len(scores)} scores for {len(positives)} positives and {len(negatives)} negatives",
                cure="Give one score per document, the positives first, or none",
            )
        query_id = None if chosen.id is None else row[chosen.id]
        return Example(
            query=self._query(row, chosen, place),
            positives=tuple(positives),
            negatives=tuple(negatives),
            scores=tuple(scores),
            query_id="" if query_id is None else str(query_id),
            teacher_gram=self._gram(row, len(positives) + len(negatives), place),
            not_negatives=tuple(
                self._texts(row, (MASKED_NAME,) if MASKED_NAME in row else (), place)
            ),
            guide_query=""
            if chosen.guide is None
            else _text(row[chosen.guide], chosen.guide, place),
        )

    def _query(self, row: Row, chosen: ChosenColumns, place: str) -> str:
        """Return the query, the turns before it first where the source has some."""
        query = _text(row[chosen.query], chosen.query, place)
        if chosen.history is None:
            return query
        where, marks = f"{place} {chosen.history}", self.columns.marks_query
        return with_history(query, row[chosen.history], where, marks=marks)

    def _texts(self, row: Row, columns: tuple[str, ...], place: str) -> list[str]:
        return [_text(item, column, place) for column, item in self._items(row, columns)]

    def _items(self, row: Row, columns: tuple[str, ...]) -> Iterator[tuple[str, object]]:
        """Yield the values of several columns, lists one item at a time, nothing for no value."""
        for column in columns:
            value = row[column]
            if value is None or (self.only_text and value == ""):
                continue
            for item in value if isinstance(value, list) else [value]:
                yield column, item

    def _gram(self, row: Row, size: int, place: str) -> tuple[float, ...]:
        """Return the cosines between a row's documents, or none where the row has none."""
        column = (GRAM_NAME,) if GRAM_NAME in row else ()
        items = self._items(row, column)
        gram = tuple(float(self._number(item, GRAM_NAME, place)) for _, item in items)
        if gram and (len(gram) != num_pairs(size) or max(map(abs, gram)) > 1):
            raise UserError(
                f"{place} {GRAM_NAME}", f"must be the {num_pairs(size)} cosines between {size} documents",
                got=row[GRAM_NAME], cure="Write the rows again with `embedtrain score --gram`",
            )  # fmt: skip
        return gram

    def _number(self, value: object, column: str, place: str) -> int | float:
        if self.only_text and isinstance(value, str):
            with suppress(ValueError):  # reported below, with the text as it stands in the file
                value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{place} {column}", "must be a number or a list of numbers", got=value)
        if not abs(value) <= sys.float_info.max:  # a NaN neither, nor a whole number beyond floats
            raise UserError(
                f"{place} {column}",
                "must be finite",
                got=value,
                cure="Drop the row or mend the score",
            )
        return value

    def _score(self, given: object, column: str, place: str) -> float:
        value = self._number(given, column, place)
        if self.score_range is None:
            return float(value)
        low, high = self.score_range
        if not low <= value <= high:
            raise UserError(
                f"{place} {column}",
                "lies outside score_range",
                got=value,
                cure="Correct data.sources",
            )
        return (value - low) / (high - low)

    def _class(self, value: object, place: str) -> float:
        """Return the number of a class: its own, or that of its first row."""
        if isinstance(value, str) and value.strip():
            names = self.columns.classes
            if names and value not in names:
                raise UserError(
                    place, "is none of the classes", got=value, cure=f"Use {', '.join(names)}"
                )
            return float(
                names.index(value) if names else self._classes.setdefault(value, len(self._classes))
            )
        if isinstance(value, int) and abs(value) < LARGEST_CLASS:
            return float(value)
        raise UserError(place, "must be a text or a whole number", got=value)


def _text(value: object, column: str, place: str) -> str:
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        value = with_fields(value["text"], value, f"{place} {column}")
    if not isinstance(value, str):
        raise UserError(
            f"{place} {column}",
            "must be a text",
            got=value,
            cure="Mend the row or choose another column",
        )
    if not value or value.isspace():
        raise UserError(
            f"{place} {column}", "is an empty text", cure="Drop the row or give the text"
        )
    return value


def with_fields(text: str, fields: Mapping[str, object], place: str) -> str:
    """Return a text with its title before it, or with its span marked.

    Raises:
        UserError: If it has both, or the span is none of the text.
    """
    span, title = fields.get("span"), fields.get("title")
    if span is None:
        return join_title(title, text)
    if title:
        raise UserError(place, "has a span and a title", got=title, cure="Put both into the text")
    return mark(text, span, f"{place} span")


def text_column(row: Row, wanted: str | None, known: tuple[str, ...], place: str, cure: str) -> str:
    """Return the name of the column that holds a row's text: the wanted one, or the first known one."""
    column = wanted or next((name for name in known if name in row), None)
    if column is None or column not in row:
        problem = f"has no column {wanted or ' or '.join(dict.fromkeys(known))}"
        raise UserError(place, problem, got=sorted(row), cure=cure)
    return column


def join_title(title: object, text: str) -> str:
    """Join a document's title and text by a space, as BEIR does; a missing title adds nothing."""
    return f"{title} {text}".strip() if title else text.strip()
