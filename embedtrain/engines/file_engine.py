"""Files that engines read: parts of lines, written by a format, and read again to see that they say what they should.

A document that is written again, or removed, gets another line in a later part, which is what the engine does with it
when it reads the parts in their order. So a loading goes on where it was, and the folder can be fed again.
"""

import io
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
from pydantic import Field, RootModel

from embedtrain.engines.address import Address
from embedtrain.engines.engine import (
    Document,
    Entries,
    Found,
    Record,
    Row,
    Vectors,
    best_first,
)
from embedtrain.engines.layout import Abilities, Layout, VectorField, read_layout
from embedtrain.errors import UserError
from embedtrain.files import check_folder, read_json, write_file, write_json
from embedtrain.models.backbone.folder_files import checked
from embedtrain.outside import reading
from embedtrain.retrieval.indexes import Kind
from embedtrain.retrieval.search import search
from embedtrain.seals import checksum_of
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import TokenVectors

LAYOUT, SUMS = "layout.json", "checksums.json"
CURE = "Remove the folder and load again"
PART = r"part-\d{5,}"


class Sums(RootModel[dict[Annotated[str, Field(pattern=rf"^{PART}\.\w+$")], str]]):
    """The checksum of each part, in their order."""


@dataclass(frozen=True)
class Line:
    """What a part says about a document; without vectors it is removed."""

    id: str
    text: str | None = None
    hash: str = ""
    vectors: Mapping[str, Row] | None = None


@runtime_checkable
class Format(Protocol):
    """How an engine wants its documents written."""

    abilities: Abilities
    takes_empty: frozenset[Kind]
    suffix: str

    def head(self, layout: Layout, name: str) -> Mapping[str, str]:
        """Return the files that go to the engine before the documents: a mapping, a schema."""
        ...

    def put(self, record: Record, layout: Layout, name: str) -> str:
        """Return the lines that add or replace a document."""
        ...

    def remove(self, document_id: str, name: str) -> str:
        """Return the lines that remove one."""
        ...

    def read(self, lines: Iterator[str], layout: Layout) -> Iterator[Line]:
        """Read the lines of a part."""
        ...


class FileEngine:
    """A folder of parts: ``FORMAT://./FOLDER/COLLECTION``."""

    def __init__(self, address: Address, format_: Format) -> None:
        address.refuse_unknown()
        self.place, self._name, self._format = address.place, address.collection, format_
        self.abilities, self.takes_empty = format_.abilities, format_.takes_empty
        self._folder = address.folder / address.collection
        check_folder(self.place, self._folder)
        heads = set(format_.head(Layout(fields=()), address.collection))
        refuse_other_files(self._folder, {LAYOUT, SUMS, *heads}, PART + re.escape(format_.suffix))
        layout = self._folder / LAYOUT
        self._layout = read_layout(layout, read_json(layout)) if os.path.lexists(layout) else None
        sums = self._folder / SUMS
        self._sums = checked(sums, Sums, read_json(sums, optional=True)).root
        there = {path.name for path in self._folder.glob("part-*")}
        if missing := [
            name for name in heads if self._layout and not (self._folder / name).exists()
        ]:
            raise UserError(self._folder, "is a collection of another engine", got=missing[0])
        if self._layout is not None and self._layout.is_finished and there - self._sums.keys():
            left = min(there - self._sums.keys())
            raise UserError(sums, "does not name a part that was loaded", got=left, cure=CURE)
        self._hashes: dict[str, str] = {}
        for line, _ in self._lines():
            self._hashes.pop(line.id, None)
            if line.vectors is not None:
                self._hashes[line.id] = line.hash

    def describe(self) -> Layout | None:
        """Return what lies beside the parts."""
        return self._layout

    def settle(self, layout: Layout) -> None:
        """Write the layout and what the engine reads first."""
        for name, text in self._format.head(layout, self._name).items():
            write_file(self._folder / name, text)
        write_json(self._folder / LAYOUT, layout.model_dump(mode="json"))
        self._layout = layout

    def hashes(self, ids: Sequence[str]) -> dict[str, str]:
        """Return what the parts say."""
        return {one: self._hashes[one] for one in ids if one in self._hashes}

    def write(self, records: Sequence[Record]) -> None:
        """Write another part."""
        assert self._layout is not None
        self._part("".join(self._format.put(one, self._layout, self._name) for one in records))
        self._hashes |= {one.document.id: one.document.hash for one in records}

    def ids(self) -> Iterator[str]:
        """Return the documents that the parts leave."""
        yield from list(self._hashes)

    def delete(self, ids: Sequence[str]) -> None:
        """Write a part that removes documents."""
        self._part("".join(self._format.remove(one, self._name) for one in ids))
        for one in ids:
            self._hashes.pop(one, None)

    def _part(self, content: str) -> None:
        last = max((int(re.sub(r"\D", "", name)) for name in self._sums), default=-1)
        path = self._folder / f"part-{last + 1:05d}{self._format.suffix}"
        write_file(path, content)
        self._sums[path.name] = checksum_of(content.encode())
        write_json(self._folder / SUMS, self._sums)

    def count(self) -> int:
        """Count the documents that the parts leave."""
        return len(self._hashes)

    def is_exact(self, field: VectorField) -> bool:  # noqa: ARG002 - all are
        """Say that every document is compared."""
        return True

    def search(self, field: VectorField, queries: Vectors, num_results: int) -> list[list[Found]]:
        """Read all parts and compare each document, as the engine would without an index."""
        best: list[list[Found]] = [[] for _ in range(len(queries))]
        last = {line.id: place for line, place in self._lines()}
        for name in self._sums:
            lines = [
                line for line, place in self._lines(name)
                if line.vectors is not None and last[line.id] == place and field.name in line.vectors
            ]  # fmt: skip
            if not lines:
                continue
            vectors = stack([line.vectors[field.name] for line in lines if line.vectors], field)
            found = search(queries, vectors, num_results)
            for number, (indices, scores) in enumerate(
                zip(found.indices, found.scores, strict=True)
            ):
                new = [
                    Found(lines[index].id, float(score), lines[index].text)
                    for index, score in zip(indices.tolist(), scores, strict=True) if index >= 0
                ]  # fmt: skip
                best[number] = best_first([*best[number], *new])[:num_results]
        return best

    def _lines(self, only: str | None = None) -> Iterator[tuple[Line, tuple[str, int]]]:
        """Yield what the parts say, and where."""
        for name in self._sums if only is None else (only,):
            if self._layout is None:
                raise UserError(self._folder / LAYOUT, "is missing beside the parts", cure=CURE)
            # ``splitlines`` would also end a line within a text that holds U+2028.
            lines = io.StringIO(_read(self._folder / name, self._sums[name]))
            with reading(self._folder / name, cure=CURE):  # it is whole: the layout is another's
                for number, line in enumerate(self._format.read(lines, self._layout)):
                    yield line, (name, number)

    def close(self) -> None:
        """Nothing is held open."""


def refuse_other_files(folder: Path, names: Collection[str], part: str | None = None) -> None:
    """Refuse a folder that holds what is no part of a collection: it would be replaced, or mixed with one.

    Raises:
        UserError: With the first such file.
    """
    with reading(folder):
        found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    for name in found:
        is_own = name in names or name.startswith(".tmp-") or (part and re.fullmatch(part, name))
        if not is_own:
            raise UserError(
                folder, "holds other files than a collection of this engine", got=name,
                cure="Name a new or an empty folder",
            )  # fmt: skip


def _read(path: Path, checksum: str) -> str:
    with reading(path):
        content = path.read_bytes()
    if checksum_of(content) != checksum:
        raise UserError(path, "is damaged: it is not what was written", cure=CURE)
    return content.decode()


def stack(rows: Sequence[Row], field: VectorField) -> Vectors:
    """Lay what each text has side by side."""
    if field.kind == "sparse":
        entries = [row for row in rows if isinstance(row, Entries)]
        lengths = np.array([0, *(len(one.values) for one in entries)], np.int64)
        values = np.concatenate([one.values for one in entries])
        indices = np.concatenate([one.indices for one in entries])
        return SparseVectors(values, indices, np.cumsum(lengths), field.dim)
    arrays = [row for row in rows if isinstance(row, np.ndarray)]
    if field.kind == "dense":
        return np.stack(arrays)
    tokens = [array.reshape(-1, field.dim) for array in arrays]
    return TokenVectors(np.concatenate(tokens), np.array(list(map(len, tokens)), np.int64))


def numbers(row: Row) -> Any:  # noqa: ANN401 - JSON
    """Return what JSON writes: nine digits give the same float32 again; words are keys by their number."""
    if isinstance(row, Entries):
        pairs = zip(row.indices.tolist(), row.values.tolist(), strict=True)
        return {str(index): float(f"{value:.9g}") for index, value in pairs}
    if row.ndim == 2:
        return [numbers(one) for one in row]
    return [float(f"{value:.9g}") for value in row.tolist()]


def row_of(value: Any, field: VectorField) -> Row:  # noqa: ANN401 - JSON
    """Read what :func:`numbers` wrote."""
    if field.kind == "sparse":
        indices = np.array([int(key) for key in value], np.int32)
        order = np.argsort(indices)
        return Entries(indices[order], np.array(list(value.values()), np.float32)[order])
    return np.array(value, np.float32)


def fields_of(document: Document) -> dict[str, Any]:
    """Return what stands beside the vectors."""
    text = {} if document.text is None else {"text": document.text}
    return {**text, "metadata": dict(document.metadata), "hash": document.hash}


def dump(*objects: object) -> str:
    """Write each object on a line."""
    lines = (json.dumps(one, ensure_ascii=False, allow_nan=False) for one in objects)
    return "".join(f"{line}\n" for line in lines)
