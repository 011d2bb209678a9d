"""Score a model on a retrieval task: the same few lines for validation and for `embedtrain evaluate`."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.encoding.texts import encode_texts
from embedtrain.evaluation.measures.metrics import Ranking, rank_arrays
from embedtrain.models.dense.pair_head import interaction_of
from embedtrain.models.encoder import TextEncoder
from embedtrain.retrieval.search import search
from embedtrain.types import Interaction, TokenVectors

RESULTS = 100
"""Results kept per query: the deepest cut-off of the reported metrics."""


@dataclass(frozen=True)
class EncodedTask:
    """The embeddings of a task, in the order of its ids."""

    queries: Float32[np.ndarray, "queries dim"] | TokenVectors
    documents: Float32[np.ndarray, "documents dim"] | TokenVectors
    interaction: Interaction | None = None
    """What scores pairs of vectors, where it is not the inner product."""


def encode_task(model: TextEncoder, task: RetrievalTask) -> EncodedTask:
    """Encode the queries and the corpus of a task."""
    return EncodedTask(
        encode_texts(model, task.queries, "query"),
        encode_texts(model, task.documents, "document"),
        interaction_of(model),
    )


def rank_task(task: RetrievalTask, encoded: EncodedTask, num_results: int = RESULTS) -> Ranking:
    """Search the corpus exactly for every query."""
    found = search(encoded.queries, encoded.documents, num_results, encoded.interaction)
    return rank_arrays(task.qrels, task.query_ids, task.document_ids, found.indices, found.scores)
