"""Workflow: a model becomes scores with intervals, and what they cost."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.encoding.blocks import block_size, small_chunks
from embedtrain.encoding.cache import (
    embeddings_folder,
    keep_embeddings,
    load_embeddings,
    model_key,
)
from embedtrain.encoding.texts import encode_texts
from embedtrain.evaluation.measures.efficiency import (
    Efficiency,
    describe_machine,
    measure_latency,
    measure_throughput,
)
from embedtrain.evaluation.measures.metrics import rank_arrays, score_ranking
from embedtrain.evaluation.results.report import summarise
from embedtrain.evaluation.results.result import EvaluatedData, EvaluationResult
from embedtrain.evaluation.tasks.retrieval import METRICS, RESULTS
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.dense.pair_head import interaction_of
from embedtrain.models.encoder import TextEncoder
from embedtrain.precision import Precision, choose
from embedtrain.progress import progress_bar
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.search import for_many_searches, search
from embedtrain.types import TokenVectors

KEPT = 20_000
"""Documents whose vectors are kept for later searches; those of more are too large to keep unasked."""
SAMPLE = 256
"""Documents timed where all vectors were kept before."""


@dataclass(frozen=True)
class Measured:
    """Scores, and the results that they are of."""

    result: EvaluationResult
    found: SearchResult


def measure(
    model: TextEncoder, task: RetrievalTask, split: str, title: str, *, efficiency: bool = True
) -> EvaluationResult:
    """Score a model on a task; see :func:`search_and_measure`."""
    return search_and_measure(model, task, split, title, efficiency=efficiency).result


def search_and_measure(
    model: TextEncoder,
    task: RetrievalTask,
    split: str,
    title: str,
    *,
    efficiency: bool = True,
    cache: Path | None = None,
    precision: Precision = "auto",
) -> Measured:
    """Score a model on a task.

    ``split`` goes into the result; the documents' vectors are looked for and kept in ``cache``. ``precision`` is
    what the network computes in.
    """
    encode = partial(encode_texts, model, precision=precision)
    with progress_bar(f"{title}: encoding", len(task.queries) + len(task.documents)) as advance:
        queries = encode(task.queries, "query", progress=advance)
        documents, per_second = _encode_documents(model, task.documents, cache, advance, precision)
    interaction, device = interaction_of(model), model.device
    kept = for_many_searches(documents, interaction, device)
    found = search(queries, kept, RESULTS, interaction, device)
    ids = task.query_ids, task.document_ids
    ranking = rank_arrays(task.qrels, *ids, found.indices, found.scores)

    def search_one(query: str) -> object:
        return search(encode([query], "query"), kept, 10, interaction, device)

    cost = None
    if efficiency:
        cost = Efficiency(
            machine=describe_machine(),
            num_documents=len(task.documents),
            documents_per_second=per_second,
            query_latency=measure_latency(search_one, task.queries),
            bytes_per_document=documents.nbytes / len(documents),
        )
    data = EvaluatedData(
        name=task.name,
        split=split,
        fingerprint=task.fingerprint,
        num_queries=len(task.queries),
        num_documents=len(task.documents),
    )
    return Measured(summarise(score_ranking(ranking, METRICS), data, efficiency=cost), found)


def _encode_documents(
    model: TextEncoder,
    texts: list[str],
    cache: Path | None,
    advance: Callable[[int], None],
    precision: Precision,
) -> tuple[NDArray[np.float32] | TokenVectors, float]:
    """Return the vectors, from the cache if it has them, and how many are encoded in a second.

    What goes into the cache is encoded in its blocks and chunks: the bits are those of ``embed_once``.
    """
    encode = partial(encode_texts, model, precision=precision)
    folder = None
    if cache is not None and isinstance(model, DenseEncoder) and len(texts) <= KEPT:
        chosen = choose(precision, model.device.type)
        folder = embeddings_folder(cache, model_key(model), texts, "document", chosen)
        encode = partial(encode, at_once=block_size(len(texts)), execution=small_chunks(model))
    if folder is not None and (known := load_embeddings(folder, len(texts))) is not None:
        advance(len(texts))
        sample = texts[:SAMPLE]
        _, speed = measure_throughput(lambda: encode(sample, "document"), len(sample))
        return known, speed
    vectors, speed = measure_throughput(
        lambda: encode(texts, "document", progress=advance), len(texts)
    )
    if folder is not None and isinstance(vectors, np.ndarray):
        keep_embeddings(folder, vectors)
    return vectors, speed
