"""Our vectors in an engine: ``python -m embedtrain.verification.stores URL VECTORS.npz`` writes, searches, and prints.

The engine is a process's own business: a client may hang in its own code.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from embedtrain.engines.engine import Document, Record
from embedtrain.engines.layout import Layout, VectorField
from embedtrain.engines.open import open_engine
from embedtrain.errors import UserError
from embedtrain.verification.process import program
from embedtrain.verification.programmed import START_SECONDS
from embedtrain.verification.ranking import TOP, Scores, overlap
from embedtrain.verification.values import Finding, Row

LARGEST = 1e-5
"""Of a score's difference, as a share of it or of 1: engines keep float32."""
AT_ONCE = 256


class Hit(NamedTuple):
    """A document that an engine found, by its number."""

    document: int
    score: float


def compare_store(name: str, where: str, scores: Scores) -> Row:
    """Write document vectors into an engine, search all queries, and compare with exact search.

    Raises:
        ReaderFailed: If the engine dies or hangs.
    """
    with tempfile.TemporaryDirectory() as folder:
        url = where or f"{name}://{folder}/{name}/verify"
        path = Path(folder) / "vectors.npz"
        np.savez(path, documents=scores.documents, queries=scores.queries, similarity=scores.similarity)  # fmt: skip
        command = [sys.executable, "-m", "embedtrain.verification.stores", url, str(path)]
        with program(name, command) as running:
            found = json.loads(running.hear(START_SECONDS))
    theirs = [[Hit(*one) for one in hits] for hits in found]
    return _row(name, scores, theirs)


def _row(name: str, scores: Scores, theirs: Sequence[Sequence[Hit]]) -> Row:
    exact = scores.matrix
    off = [
        abs(exact[row, hit.document] - hit.score) / max(1.0, abs(hit.score))
        for row, hits in enumerate(theirs)
        for hit in hits
    ]
    largest = max(off, default=float("inf"))
    same = overlap(scores.best(), [[hit.document for hit in hits] for hits in theirs])
    figures = {"texts": float(len(scores.documents)), "largest": largest, "overlap": same}
    findings = _findings(scores, theirs, largest, same)
    return Row(name, findings=findings, figures=figures)


def _findings(
    scores: Scores, theirs: Sequence[Sequence[Hit]], largest: float, same: float
) -> list[Finding]:
    if largest <= LARGEST:
        said = f"search: {same:.1%} of the ten best in common, though scores agree (an index?)"
        return [] if same >= 1 - LARGEST else [Finding(said)]
    units = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (scores.queries, scores.documents)]  # fmt: skip
    tries = {
        "metric: cosines, where the model compares by dot products": units[0] @ units[1].T,
        "metric: distances in place of similarities": 1 - scores.matrix,
        "metric: inner products of the other sign": -scores.matrix,
    }
    for cause, other in tries.items():
        gaps = [abs(other[row, hit.document] - hit.score) for row, hits in enumerate(theirs) for hit in hits]  # fmt: skip
        if gaps and max(gaps) <= LARGEST:
            return [Finding(cause, (), float(max(gaps)))]
    best = [np.sort(row)[::-1][: len(hits)] for row, hits in zip(scores.matrix, theirs, strict=True)]  # fmt: skip
    if all(np.allclose(one, [hit.score for hit in hits], atol=LARGEST) for one, hits in zip(best, theirs, strict=True)):  # fmt: skip
        return [Finding("ids: the right scores under the ids of other documents")]
    return [Finding(f"unknown: scores are off by up to {largest:.1g}")]


def main(url: str, path: str) -> None:
    """Write, search, print the documents and scores of each query, and remove what was written."""
    with np.load(path) as file:
        documents, queries, similarity = file["documents"], file["queries"], str(file["similarity"])
    field = VectorField.model_validate(
        {"name": "dense", "kind": "dense", "dim": documents.shape[1], "similarity": similarity, "model": "verify",
         "model_name": "verify", "contract": {}}
    )  # fmt: skip
    ids = [str(number) for number in range(len(documents))]
    records = [
        Record(Document(one, None, {}, one), {"dense": row})
        for one, row in zip(ids, documents, strict=True)
    ]
    layout = Layout(fields=(field,), texts=False)
    with open_engine(url, writes=True) as engine:
        if engine.describe() is not None:
            cure = "Name a new one: it is filled and emptied"
            raise UserError(engine.place, "is there already", cure=cure)
        engine.settle(layout)
        for start in range(0, len(records), AT_ONCE):
            engine.write(records[start : start + AT_ONCE])
        engine.settle(layout.model_copy(update={"is_finished": True}))
        found = engine.search(field, queries, TOP)
        engine.delete(ids)
    print(json.dumps([[(int(hit.id), hit.score) for hit in hits] for hits in found]))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
