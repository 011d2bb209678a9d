"""A faiss index with its documents beside it, in a folder that appears whole when all is there."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from embedtrain.engines.address import Address
from embedtrain.engines.engine import Document, Found, Record, Vectors, best_first
from embedtrain.engines.file_engine import dump, refuse_other_files
from embedtrain.engines.layout import Abilities, Layout, Store, VectorField, read_layout
from embedtrain.errors import UserError
from embedtrain.files import appearing_folder, check_folder, read_json, write_json
from embedtrain.outside import reading
from embedtrain.retrieval.dense.faiss_index import (
    build_index,
    load_index,
    save_index,
    search_index,
)
from embedtrain.retrieval.indexes import Kind

LAYOUT, INDEX, DOCUMENTS = "layout.json", "index.faiss", "documents.jsonl"
FACTORIES: Mapping[Store, str] = {"float32": "Flat", "float16": "SQfp16", "int8": "SQ8"}


ABILITIES: Abilities = {"dense": {"float32": 2**20, "float16": 2**20, "int8": 2**20}}


class FaissEngine:
    """A folder: ``faiss://./FOLDER/NAME?factory=HNSW32``. It holds what was loaded last, all of it from memory."""

    abilities = ABILITIES
    takes_empty: frozenset[Kind] = frozenset()

    def __init__(self, address: Address) -> None:
        address.refuse_unknown("factory")
        self.place = address.place
        self._factory = address.options.get("factory")
        self._folder = address.folder / address.collection
        check_folder(self.place, self._folder)
        refuse_other_files(self._folder, (LAYOUT, INDEX, DOCUMENTS))
        self._records: dict[str, Record] = {}
        self._documents: list[Document] | None = None
        self._index: Any = None
        self._is_built = False

    def describe(self) -> Layout | None:
        """Return what lies beside the index."""
        path = self._folder / LAYOUT
        return read_layout(path, read_json(path)) if os.path.lexists(path) else None

    def settle(self, layout: Layout) -> None:
        """Build and write the index, if all documents have come, and let go of what is in memory."""
        if len(layout.fields) > 1:
            names = ", ".join(field.name for field in layout.fields)
            cure = "Load each model into a collection of its own"
            raise UserError(self.place, "holds the vectors of one model", got=names, cure=cure)
        if not layout.is_finished:
            if self._is_built:
                write_json(self._folder / LAYOUT, layout.model_dump(mode="json"))
            return
        [field] = layout.fields
        records = list(self._records.values())
        factory = self._factory or FACTORIES[field.store]
        index = build_index(
            np.stack([np.asarray(one.vectors[field.name]) for one in records]), factory
        )
        with appearing_folder(self._folder) as partial:
            save_index(index, partial / INDEX)
            rows = (
                {"id": one.id, "text": one.text, "metadata": dict(one.metadata), "hash": one.hash}
                for one in (record.document for record in records)
            )
            (partial / DOCUMENTS).write_text(dump(*rows), encoding="utf-8")
            write_json(partial / LAYOUT, layout.model_dump(mode="json"))
        self._records, self._documents, self._index, self._is_built = {}, None, None, True

    def hashes(self, ids: Sequence[str]) -> dict[str, str]:  # noqa: ARG002 - nothing is kept between loadings
        """Say that nothing is there, so that all comes again."""
        return {}

    def write(self, records: Sequence[Record]) -> None:
        """Keep documents in memory until all are there."""
        self._records |= {record.document.id: record for record in records}

    def ids(self) -> Iterator[str]:
        """Return what was loaded."""
        yield from (one.id for one in self._kept())

    def delete(self, ids: Sequence[str]) -> None:
        """Leave documents out."""
        for one in ids:
            self._records.pop(one, None)

    def count(self) -> int:
        """Count the documents."""
        return len(self._kept())

    def is_exact(self, field: VectorField) -> bool:
        """Say whether the index compares every document with whole numbers."""
        return (self._factory or FACTORIES[field.store]) == "Flat"

    def _kept(self) -> list[Document]:
        if self._records:
            return [record.document for record in self._records.values()]
        if self._documents is None:
            path = self._folder / DOCUMENTS
            with reading(path), path.open(encoding="utf-8") as lines:
                self._documents = [Document(**json.loads(line)) for line in lines]
        return self._documents

    def search(self, field: VectorField, queries: Vectors, num_results: int) -> list[list[Found]]:  # noqa: ARG002 - it has one
        """Ask the index that was written."""
        assert isinstance(queries, np.ndarray)
        if self._index is None:
            self._index = load_index(self._folder / INDEX)
        found, kept = search_index(self._index, queries, num_results), self._kept()
        return [
            best_first(
                [
                    Found(kept[index].id, float(score), kept[index].text)
                    for index, score in zip(indices.tolist(), scores, strict=True) if index >= 0
                ]
            )
            for indices, scores in zip(found.indices, found.scores, strict=True)
        ]  # fmt: skip

    def close(self) -> None:
        """Nothing is held open."""
