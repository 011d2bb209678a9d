"""An engine's collection as the index of an evaluation: what it finds, by the rows of the task."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeGuard

import numpy as np

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.encoding.shards import current_shard
from embedtrain.engines.engine import Engine, is_empty, rows_of
from embedtrain.engines.layout import Store, VectorField
from embedtrain.engines.open import open_engine
from embedtrain.errors import UserError
from embedtrain.evaluation.tasks.base import Task
from embedtrain.evaluation.tasks.retrieval import Retrieval
from embedtrain.evaluation.tasks.subject import Subject, Vectors, kind_of
from embedtrain.models.dense.pair_head import refuse_interaction
from embedtrain.models.encoder import TextEncoder
from embedtrain.redaction import redact
from embedtrain.retrieval import indexes
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.indexes import Built, read_index
from embedtrain.section import Section
from embedtrain.workflows.load.collection import field_of

if TYPE_CHECKING:
    from embedtrain.workflows.evaluate.tasks import Wish

SHARES: dict[Store, float] = {"float32": 1, "float16": 1 / 2, "int8": 1 / 4, "binary": 1 / 32}
"""Of four bytes, that a number takes."""
NAMED = 3
"""Missing documents that a message names."""


class EngineSettings(Section):
    """What a result says of the collection that was searched."""

    name: Literal["engine"] = "engine"
    url: str
    """Its address, without a password."""


@dataclass(frozen=True)
class EngineIndex:
    """A collection that is searched as an index is.

    Attributes:
        engine: The opened collection.
        field: The vectors of the model.
        rows: Of the task's documents, by their ids.
        num_bytes: Bytes of the vectors as the engine stores numbers; what it keeps beside them is not known.
    """

    engine: Engine
    field: VectorField
    rows: Mapping[str, int]
    num_bytes: int

    def search(self, queries: Vectors, num_results: int) -> SearchResult:
        """Return the rows of what the engine finds, -1 where it finds less."""
        shape = len(queries), num_results
        indices, scores = np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
        found = self.engine.search(self.field, queries, num_results)
        for number, results in enumerate(found):
            best = results[:num_results]
            indices[number, : len(best)] = [self.rows[one.id] for one in best]
            scores[number, : len(best)] = [one.score for one in best]
        return SearchResult(indices, scores)


def is_engine(words: str | None) -> TypeGuard[str]:
    """Whether the words of ``--index`` are the address of a collection."""
    return words is not None and "://" in words


def index_of(wish: "Wish", encoder: TextEncoder) -> Section | None:
    """Read the index that is wished for, which must be of the model's kind, or the address of a collection."""
    if is_engine(wish.index):
        return EngineSettings(url=redact(wish.index))
    return None if wish.index is None else read_index(wish.index, kind_of(encoder))


def check_engine(tasks: Sequence[Task], wish: "Wish") -> None:
    """Refuse what a collection of one model and corpus cannot answer.

    Raises:
        UserError: If an engine is wished for beside it.
    """
    refused = {
        "several --data": len(tasks) > 1,
        "--dim": wish.compression.dim is not None,
        "--late-chunks": wish.late_chunks is not None,
        "--sample": wish.sample is not None,
        "--keep": wish.pruning is not None,
        "torchrun": current_shard().ranks > 1,
    }
    for what, given in refused.items():
        if given and is_engine(wish.index):
            raise UserError(
                "--index", f"names a collection of one model's whole vectors, which {what} does not go with",
                got=redact(wish.index), cure="Measure the engine alone",
            )  # fmt: skip


@contextmanager
def searched_by_engine(subject: Subject, task: Task, url: str | None) -> Iterator[None]:
    """Let a collection, where one is named, answer for the documents of a task while the block lasts.

    Raises:
        UserError: If the engine is down, the collection is half filled or of another model, or it does not hold
            exactly the task's documents.
    """
    if not is_engine(url) or not isinstance(task, Retrieval):
        yield
        return
    refuse_interaction(subject.model, "--index")
    with open_engine(url) as engine:
        field = field_of(engine, subject.model, subject.name)
        documents = task.task.documents
        vectors = subject.encode(documents, "document")
        _refuse_others(engine, task.task, vectors)
        size = round(vectors.nbytes * SHARES[field.store])
        rows = {name: row for row, name in enumerate(task.task.document_ids)}
        subject.answer_by(documents, Built(EngineIndex(engine, field, rows, size), 0.0))
        yield


def _refuse_others(engine: Engine, task: RetrievalTask, vectors: Vectors) -> None:
    there = set(engine.ids())
    missing = np.array([row for row, one in enumerate(task.document_ids) if one not in there], int)
    lost = [
        task.document_ids[number]
        for number, row in zip(missing, rows_of(indexes.rows_of(vectors, missing)), strict=True)
        if not is_empty(row)  # of which the engine takes none
    ]
    if lost:
        named = ", ".join(lost[:NAMED])
        raise UserError(
            engine.place, f"lacks {len(lost):,} documents of {task.name}", got=f"no {named}",
            cure="Load them with `embedtrain load`",
        )  # fmt: skip
    others = len(there.difference(task.document_ids))
    if others:
        raise UserError(
            engine.place, f"holds documents that are not of {task.name}, which would be found in their place",
            got=f"{others:,} of them", cure="Load the data into a collection of its own",
        )  # fmt: skip
