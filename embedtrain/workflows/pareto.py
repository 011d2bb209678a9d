"""Workflow: one encoding of a retrieval task, and what every size and form of its vectors keeps and costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.sources import load_task
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.efficiency import measure_latency, measure_throughput
from embedtrain.evaluation.measures.metrics import rank_arrays, score_ranking
from embedtrain.evaluation.measures.statistics import compare_paired
from embedtrain.evaluation.results.budget import write_points
from embedtrain.evaluation.results.pareto import Cost, Point, plot_pareto
from embedtrain.files import appearing_folder, refuse_existing
from embedtrain.models.build import load_encoder
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.late_interaction.encoder import LateInteractionEncoder
from embedtrain.progress import console
from embedtrain.retrieval.compression import CompressedIndex, Compression
from embedtrain.retrieval.stored_forms import sizes_of, stored_forms
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import TokenVectors

METRIC, RESULTS = "ndcg_at_10", 100
TIMED_QUERIES = 50
"""Single queries whose search is timed for each form."""
PerQuery = Float64[np.ndarray, " queries"]
Vectors = Float32[np.ndarray, "_ _"] | TokenVectors


@dataclass(frozen=True)
class Encoded:
    """The vectors of a task, and the seconds that one document took."""

    task: RetrievalTask
    queries: Vectors
    documents: Vectors
    seconds: float


def sweep(
    model: str, data: str, output: Path, *, split: str = "test", dims: Sequence[int] = ()
) -> list[Point]:
    """Measure every form of a model's vectors from one encoding, and write a table, its text and a picture.

    Quality is nDCG@10. Bytes are those of vectors, copies and ranges; time is that of one query's search, without
    its encoding.

    Args:
        model: A dense or late-interaction model of cosine similarity: a folder or a Hub id.
        data: A retrieval task, as for ``embedtrain evaluate``.
        output: Folder for ``pareto.csv``, ``pareto.md`` and ``pareto.svg``; must not exist.
        split: Of the task.
        dims: Sizes to cut vectors to, besides the whole one; halves if empty, none of late interaction.

    Raises:
        UserError: If the model has no such vectors, or no such dimensions.
    """
    refuse_existing(output)
    encoder = load_encoder(model)
    several = isinstance(encoder, LateInteractionEncoder)
    beside = isinstance(encoder, LateInteractionEncoder) and encoder.contract.cls_dim is not None
    if not isinstance(encoder, DenseEncoder | LateInteractionEncoder) or (
        encoder.contract.similarity != "cosine" or beside
    ):
        cure = "Name a dense or late-interaction model of cosine similarity"
        raise UserError(model, "has no vectors of length 1 to cut and quantise", cure=cure)
    largest = max(dims, default=0)
    if largest > encoder.dim:
        raise UserError("--dim", f"is more than the model's {encoder.dim}", got=largest)
    found = _encode(encoder, load_task(data, split))
    sizes = [encoder.dim] if several and not dims else sizes_of(encoder.dim, dims)
    points, scores = _measure(found, sizes)
    apart = [compare_paired(one, scores[0]) for one in scores]
    with appearing_folder(output) as folder:
        write_points(folder, points, METRIC, apart)
        plot_pareto(points, METRIC, "bytes", folder / "pareto.svg")
    return points


def _encode(encoder: DenseEncoder | LateInteractionEncoder, task: RetrievalTask) -> Encoded:
    console.print(f"Encoding {len(task.documents):,} documents once")
    queries = encode_texts(encoder, task.queries, "query")
    documents, rate = measure_throughput(
        lambda: encode_texts(encoder, task.documents, "document"), len(task.documents)
    )
    assert not isinstance(queries, SparseVectors)
    assert not isinstance(documents, SparseVectors)
    return Encoded(task, queries, documents, 1 / rate)


def _measure(found: Encoded, sizes: Sequence[int]) -> tuple[list[Point], list[PerQuery]]:
    """Return a point for each size and form, and the scores of each query."""
    points, scores = [], []
    for dim in sizes:
        cut = Compression(dim=dim)
        queries, documents = (_cut(cut, one) for one in (found.queries, found.documents))
        for name, index in stored_forms(documents):
            per_query = _score(found.task, queries, index)
            seconds = measure_latency(
                partial(index.search, num_results=10),
                _alone(queries),
                num_warmup=3, num_calls=TIMED_QUERIES,
            ).p50_seconds  # fmt: skip
            costs: dict[Cost, float] = {
                "bytes": index.num_bytes / len(documents),
                "latency": seconds,
                "encoding": found.seconds,
            }
            points.append(Point(f"{dim} {name}", float(per_query.mean()), costs))
            scores.append(per_query)
    return points, scores


def _cut(cut: Compression, vectors: Vectors) -> Vectors:
    shorter = cut.cut(vectors, normalized=True)
    assert not isinstance(shorter, SparseVectors)
    return shorter


def _alone(queries: Vectors) -> list[Vectors]:
    """Return some queries, each by itself."""
    number = min(TIMED_QUERIES, len(queries))
    if isinstance(queries, TokenVectors):
        return [queries.part(row, row + 1) for row in range(number)]
    return list(np.split(queries[:number], number))


def _score(task: RetrievalTask, queries: Vectors, index: CompressedIndex) -> PerQuery:
    found = index.search(queries, min(RESULTS, len(task.documents)))
    ranking = rank_arrays(
        task.qrels, task.query_ids, task.document_ids, found.indices, found.scores
    )
    return np.array(list(score_ranking(ranking, [METRIC])[METRIC].values()))
