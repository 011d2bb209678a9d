"""Data given in memory become files, named by their content, so that all that knows files knows them.

They are kept in the user's cache; a run copies its own into its folder, and goes on without them.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from math import isnan
from pathlib import Path
from typing import Any

from embedtrain.data.given_rows import entries_of, judgments_of, rows_of
from embedtrain.data.readers.text_lines import GIVEN, hash_files
from embedtrain.errors import UserError
from embedtrain.files import build_once, default_cache
from embedtrain.leftovers import hidden_folder
from embedtrain.outside import writing
from embedtrain.seals import keep_once

ROWS = "rows.jsonl"
TASK = "in_memory"
"""Name of a task that was given so; results show it."""
PARTS = ("queries", "documents", "qrels")


def keep_rows(rows: object, place: str = "data") -> Path:
    """Write rows to a JSON Lines file once and return its path; errors of what reads it name ``place``.

    Args:
        rows: An iterable of dicts, such as a list, a generator (read once) or a ``datasets.Dataset``; or a
            pandas or polars frame, or a table of pyarrow.
        place: Where the rows were given, for errors.

    Raises:
        UserError: If they are none of these, there is none, or a value is no text, number, list or dict.
    """
    folder = _keep(lambda folder: _write(folder / ROWS, rows_of(rows, place), place))
    GIVEN[str(folder / ROWS)] = place
    return folder / ROWS


def keep_task(queries: object, documents: object, qrels: object, *, prefix: str = "") -> Path:
    """Write a retrieval task to a BEIR folder once and return it.

    Args:
        queries: Id to text, or texts, or rows with ``_id`` and ``text``; the ids of others count from 0.
        documents: The same; a row may have a ``title``.
        qrels: Query id to a list of the ids of its relevant documents, or to document id to grade; or rows
            with ``query-id``, ``corpus-id`` and ``score``.
        prefix: Of the names of the three, for errors.

    Raises:
        UserError: If one of them is none of these, or they do not fit together.
    """
    asked = entries_of(queries, f"{prefix}queries", may_be_empty=False)
    corpus = entries_of(documents, f"{prefix}documents", may_be_empty=True)
    judged = judgments_of(qrels, f"{prefix}qrels", asked, corpus)

    def write(folder: Path) -> None:
        (folder / TASK / "qrels").mkdir(parents=True)
        _write(folder / TASK / "queries.jsonl", asked.values(), f"{prefix}queries")
        _write(folder / TASK / "corpus.jsonl", corpus.values(), f"{prefix}documents")
        lines = ["\t".join(map(str, judgment)) for judgment in judged]
        text = "\n".join(["query-id\tcorpus-id\tscore", *lines, ""])
        (folder / TASK / "qrels" / "test.tsv").write_text(text, encoding="utf-8")

    return _keep(write) / TASK


def name_given(path: str) -> str:
    """Return what is shown for a path: itself, unless what lies there was given in memory."""
    kept = re.search(rf"[\\/]given[\\/]\w{{16}}[\\/]({ROWS}|{TASK})$", path)
    return "given in memory" if kept else path


def copy_sections(content: Any) -> Any:  # noqa: ANN401 - any part of a recipe
    """Copy the dicts and lists of a recipe, but not what is given in them; paths become texts."""
    if isinstance(content, Mapping):
        return {
            key: part if key in ("rows", *PARTS) else copy_sections(part)
            for key, part in content.items()
        }
    if type(content) in (list, tuple):
        return [copy_sections(part) for part in content]
    return str(content) if isinstance(content, Path) else content


def keep_given(content: dict[str, Any]) -> None:
    """Put paths in the place of the data that a recipe's sections hold in memory."""
    data = content.get("data")
    sources = data.get("sources") if isinstance(data, Mapping) else None
    for number, source in enumerate(sources if isinstance(sources, list) else ()):
        if isinstance(source, dict) and "rows" in source and "path" not in source:
            source["path"] = str(keep_rows(source.pop("rows"), f"data.sources.{number}.rows"))
    for name in ("validation", "evaluation"):
        task = content.get(name)
        lacking = [part for part in PARTS if not isinstance(task, dict) or part not in task]
        if isinstance(task, dict) and not lacking:
            task["path"] = str(keep_task(*(task.pop(part) for part in PARTS), prefix=f"{name}."))
            task["split"] = "test"
        elif len(lacking) < len(PARTS):
            cure = "Give queries, documents and qrels, all three"
            raise UserError(f"{name}.{lacking[0]}", "is missing", cure=cure)


def copy_given(content: Any, folder: Path, place: Path) -> Any:  # noqa: ANN401 - any part of a recipe
    """Copy the files that were given in memory to ``folder`` and name them at ``place``, where it will lie."""
    if isinstance(content, dict):
        return {key: copy_given(part, folder, place) for key, part in content.items()}
    if isinstance(content, list):
        return [copy_given(part, folder, place) for part in content]
    if not isinstance(content, str) or not Path(content).is_relative_to(_store()):
        return content
    inside = Path(content).relative_to(_store())
    kept = _store() / inside.parts[0]

    def copy(new: Path) -> None:
        shutil.copytree(kept, new, dirs_exist_ok=True)

    build_once(folder / inside.parts[0], copy)
    return str(place.resolve() / inside)


def _store() -> Path:
    return default_cache().absolute() / "given"


def _keep(write: Callable[[Path], None]) -> Path:
    """Let ``write`` fill a folder, and name it by what its files hold."""
    with writing(_store()):
        _store().mkdir(parents=True, exist_ok=True)
        building = hidden_folder(_store())

    def move(folder: Path) -> None:
        for path in building.iterdir():
            path.rename(folder / path.name)

    try:
        write(building)
        files = sorted(path for path in building.rglob("*") if path.is_file())
        return keep_once(_store() / hash_files(files)[:16], move)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write(path: Path, rows: Iterable[Mapping[str, object]], place: str) -> None:
    """Write rows as JSON Lines; what is missing in a frame becomes null."""
    number = -1
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows):
            try:
                values = {str(key): _without_nan(value) for key, value in row.items()}
                file.write(json.dumps(values, default=_plain) + "\n")
            except (TypeError, ValueError, RecursionError) as error:
                cure = "Give texts, numbers and lists of them"
                raise UserError(f"{place} row {number}", str(error), cure=cure) from None
    if number < 0:
        raise UserError(place, "holds no row", cure="Give at least one")


def _without_nan(value: object) -> object:
    return None if isinstance(value, float) and isnan(value) else value


def _plain(value: Any) -> object:  # noqa: ANN401 - a value of any library
    """Return what JSON can say in the place of numpy's arrays and numbers and pandas' missing values."""
    if type(value).__module__.partition(".")[0] == "numpy":
        return value.tolist()
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    raise TypeError(f"holds a value of type {type(value).__name__}")
