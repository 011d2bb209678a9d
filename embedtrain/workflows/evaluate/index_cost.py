"""What an index costs, and what it misses of the exact search over the same vectors."""

import numpy as np

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.evaluation.measures.efficiency import measure_latency
from embedtrain.evaluation.results.result import IndexFigures
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.retrieval.dense.faiss_index import sample_rows
from embedtrain.retrieval.indexes import recall_of, rows_of
from embedtrain.retrieval.sparse.exact import InvertedIndex
from embedtrain.retrieval.sparse.two_step import TwoStepIndex
from embedtrain.sparse_vectors import SparseVectors

DEPTHS = (10, 100)
SAMPLED, TIMED, WARM_UP = 200, 100, 5
"""Queries whose results are compared with the exact ones, at most; searches that are timed, and before the clock."""


def measure_index(subject: Subject, task: RetrievalTask, *, timed: bool) -> IndexFigures:
    """Measure the index of a subject on a task whose vectors are in the cache."""
    assert subject.index is not None
    built = subject.built(task.documents)
    index, num_documents = built.index, len(task.documents)
    documents, asked = (
        subject.encode(task.documents, "document"),
        subject.encode(task.queries, "query"),
    )
    queries = rows_of(asked, sample_rows(len(task.queries), SAMPLED, 0))
    recall = recall_of(index, queries, documents, DEPTHS, subject.model.device)
    latency = None
    if timed:
        single = [rows_of(queries, np.array([row])) for row in range(len(queries))]
        latency = measure_latency(
            lambda query: index.search(query, DEPTHS[0]),
            single,
            num_warmup=WARM_UP,
            num_calls=TIMED,
        )
    postings = None
    if isinstance(queries, SparseVectors) and isinstance(index, InvertedIndex | TwoStepIndex):
        postings = float(index.touched(queries).mean())
    return IndexFigures(
        settings=subject.index.model_dump(),
        bytes_per_document=index.num_bytes / num_documents,
        build_seconds=built.seconds,
        recall={f"recall_at_{depth}": value for depth, value in recall.items()},
        num_queries=len(queries),
        latency=latency,
        postings_per_query=postings,
    )
