"""Mining tasks of hand-made vectors: query i is the i-th axis, so a document's i-th number is its score."""

from collections.abc import Sequence

import numpy as np

from embedtrain.mining.dense import EncodedPairs
from embedtrain.mining.search import CandidateSource
from embedtrain.mining.task import MiningTask


def make_task(
    scores: Sequence[Sequence[float]],
    positives: Sequence[Sequence[int]],
    texts: Sequence[str] | None = None,
) -> tuple[MiningTask, EncodedPairs]:
    """Return a task in which document j scores ``scores[i][j]`` for query i."""
    documents = np.array(scores, dtype=np.float32).T
    queries = np.eye(len(scores), dtype=np.float32)
    task = MiningTask(
        name="toy",
        query_ids=[f"q{row}" for row in range(len(queries))],
        queries=[f"query {row}" for row in range(len(queries))],
        document_ids=[f"d{row}" for row in range(len(documents))],
        documents=list(texts or (f"document {row}" for row in range(len(documents)))),
        positives=[np.array(rows, dtype=np.int64) for rows in positives],
        fingerprint="toy",
    )
    return task, EncodedPairs("toy", queries, documents)


def fixed(name: str, ranking: Sequence[int], quota: float = 1.0) -> CandidateSource:
    """Return a source that gives every query the same ranking."""

    def search(rows: np.ndarray, depth: int) -> np.ndarray:
        return np.tile(np.array(ranking[:depth], dtype=np.int64), (len(rows), 1))

    return CandidateSource(name, float(quota), search, {})
