"""The rows that mining wrote, and the candidates that it kept out, read for a judge."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError

from embedtrain.data.readers.rows import with_fields
from embedtrain.data.readers.text_lines import parse_object, read_lines
from embedtrain.errors import UserError
from embedtrain.mining.output import MiningFolder

CURE = "Mine again with `embedtrain mine ... num_rejected=20`"
PEOPLE = "judged"
"""What ``positive_sources`` calls a positive that people gave."""


def _marked(value: object) -> object:
    """Return a text with its span marked, where it is written with one."""
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        return with_fields(value["text"], value, "text")
    return value


Text = Annotated[str, BeforeValidator(_marked)]


class MinedRow(BaseModel):
    """One row of ``train.jsonl``; other columns are kept as they are."""

    query_id: str
    query: str
    positives: list[Text]
    negatives: list[Text]
    positive_ids: list[str]
    negative_ids: list[str]
    scores: list[float]
    positive_sources: list[str] | None = None
    not_negatives: list[Text] = []

    @property
    def lowest(self) -> float:
        """The smallest score among the positives."""
        return min(self.scores[: len(self.positives)])


class RejectedCandidate(BaseModel):
    """A candidate that mining kept out."""

    id: str
    text: Text
    score: float
    rank: int


class RejectedRow(BaseModel):
    """One line of ``rejected.jsonl``."""

    query_id: str
    rejected: list[RejectedCandidate]


@dataclass(frozen=True)
class JudgedQuery:
    """A query with its row, as the file holds it and as it reads, and what mining kept out."""

    line: str
    row: MinedRow
    rejected: list[RejectedCandidate]

    def content(self) -> dict[str, object]:
        """Return all columns of the row."""
        found: dict[str, object] = json.loads(self.line)
        return found


def read_mined(path: Path) -> Iterator[JudgedQuery]:
    """Yield the queries of a mining's output folder in its order.

    Raises:
        UserError: If it is none, or a file is damaged.
    """
    folder = MiningFolder(path)
    if not folder.training.is_file():
        raise UserError(
            path, "holds no train.jsonl", cure="Give the output folder of `embedtrain mine`"
        )
    rejected = _rejected(folder)
    for number, _, line in read_lines(folder.training):
        if line.isspace():
            continue
        place = f"{folder.training}:{number}"
        row = _checked(place, MinedRow, line)
        _refuse_uneven(place, row)
        yield JudgedQuery(line, row, rejected.pop(row.query_id, []))
    if rejected:
        name = next(iter(rejected))
        raise UserError(folder.rejected, "is of another mining", got=f"query {name}", cure=CURE)


def _rejected(folder: MiningFolder) -> dict[str, list[RejectedCandidate]]:
    if not folder.rejected.is_file():
        return {}
    return {
        row.query_id: row.rejected
        for number, _, line in read_lines(folder.rejected)
        if (row := _checked(f"{folder.rejected}:{number}", RejectedRow, line))
    }


Form = TypeVar("Form", bound=BaseModel)


def _checked(place: str, form: type[Form], line: str) -> Form:
    try:
        return form.model_validate(parse_object(place, line), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{place} {key}", first["msg"].lower(), cure=CURE) from None


def _refuse_uneven(place: str, row: MinedRow) -> None:
    sides = (row.positives, row.positive_ids), (row.negatives, row.negative_ids)
    uneven = any(len(texts) != len(ids) for texts, ids in sides)
    if uneven or not row.positives or len(row.scores) != len(row.positives) + len(row.negatives):
        raise UserError(
            place, "must have positives, an id for each text, and a score for each", cure=CURE
        )
