"""Where the data of a task lies, and its rows, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedtrain.data.readers.text_lines import hash_files, read_objects
from embedtrain.errors import UserError
from embedtrain.evaluation.results.result import EvaluatedData

SPLIT = "test"
"""What is evaluated where nobody says otherwise."""


@dataclass(frozen=True)
class TaskFiles:
    """The data that a path and a split stand for."""

    path: Path
    """A folder (BEIR), a JSON Lines file, or the name of a built-in set."""
    name: str
    split: str
    training: Path | None = None
    """The rows that a probe is trained on, where they lie beside the file."""

    @property
    def is_beir(self) -> bool:
        """Whether this is a BEIR folder."""
        return (self.path / "corpus.jsonl").is_file() or (self.path / "qrels").is_dir()

    @property
    def columns(self) -> set[str]:
        """Columns of the first row of a JSON Lines file; none of anything else."""
        if not self.path.is_file():
            return set()
        return set(next(read_objects(self.path))[1])

    def described(self, task: str, num_items: int, num_documents: int) -> EvaluatedData:
        """Describe data that lies in one JSON Lines file, with its training rows."""
        used = [self.path, *([self.training] if self.training else [])]
        return EvaluatedData(
            name=self.name,
            split=self.split,
            fingerprint=hash_files(used),
            num_queries=num_items,
            num_documents=num_documents,
            task=task,
        )


def find_files(path: str, split: str | None = None) -> TaskFiles:
    """Find the data of a path: a file, a folder of ``<split>.jsonl``, or ``name`` of ``name.<split>.jsonl``.

    Raises:
        UserError: If nothing is there, or the file named is of another split than the one asked for.
    """
    place = Path(path).expanduser()
    wanted = split or SPLIT
    if place.is_file():
        stem = place.name.removesuffix(".gz").rpartition(".")[0]
        name, _, of_file = stem.rpartition(".")
        found = TaskFiles(place, name or of_file, of_file if name else wanted, _training(place))
        if split is not None and name and split != of_file:
            raise UserError(
                place, f"is not the split {split}", got=of_file, cure="Name one or the other"
            )
        return found
    for candidate in (place / f"{wanted}.jsonl", place.parent / f"{place.name}.{wanted}.jsonl"):
        if candidate.is_file():
            return TaskFiles(candidate, place.name, wanted, _training(candidate))
    if path != "python_docs" and not place.is_dir():
        raise UserError(
            path,
            f"is no file, no folder, and there is no {place.name}.{wanted}.jsonl",
            cure="Check the path and --split",
        )
    return TaskFiles(place, place.resolve().name if place.is_dir() else path, wanted)


def _training(path: Path) -> Path | None:
    """Return ``x.train.jsonl`` beside ``x.test.jsonl``, or ``train.jsonl`` beside ``test.jsonl``."""
    base = path.name.removesuffix(".gz")
    stem, _, ending = base.rpartition(".")
    name, dot, _ = stem.rpartition(".")
    for gz in ("", ".gz"):
        candidate = path.with_name(f"{name}{dot}train.{ending}{gz}")
        if candidate.is_file() and candidate.name != path.name:
            return candidate
    return None


def read_rows(path: Path, columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Read a JSON Lines file whose rows hold these columns, each of its type.

    Raises:
        UserError: If a row lacks a column or holds something else; names the line.
    """
    rows = []
    for place, row in read_objects(path):
        for name, kind in columns.items():
            if name not in row:
                raise UserError(place, f"has no column {name}", got=sorted(row), cure="Add it")
            if not isinstance(row[name], kind) or (
                isinstance(row[name], bool) and kind is not object
            ):
                raise UserError(
                    place,
                    f"holds something other than {_name(kind)} in {name}",
                    got=row[name],
                    cure="Correct it",
                )
        rows.append(row)
    return rows


def item_id(row: Mapping[str, Any], number: int) -> str:
    """Return the id of a row, or its number where it has none."""
    return str(row.get("_id", row.get("id", number)))


def item_ids(path: Path, rows: list[dict[str, Any]]) -> list[str]:
    """Return the id of each row; refuse one that occurs twice."""
    ids = [item_id(row, number) for number, row in enumerate(rows, 1)]
    if len(set(ids)) < len(ids):
        twice = next(one for one in ids if ids.count(one) > 1)
        raise UserError(path, "has an id twice", got=twice, cure="Make ids unique")
    return ids


def _name(kind: Any) -> str:  # noqa: ANN401 - a type or several
    kinds = kind if isinstance(kind, tuple) else (kind,)
    names = {str: "a text", int: "a number", float: "a number", list: "a list"}
    return " or ".join(dict.fromkeys(names[one] for one in kinds))
