"""Score a model on a retrieval task: the same few lines for validation and for `embedtrain evaluate`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.encoding.blocks import Vectors, block_starts, encode_share, join_shares, own_blocks
from embedtrain.encoding.cross_encoder import CrossEncoder
from embedtrain.encoding.shards import Shard
from embedtrain.evaluation.measures.metrics import PerQuery, Ranking, rank_arrays, score_ranking
from embedtrain.evaluation.measures.second_stage import reorder
from embedtrain.interaction_types import Interaction
from embedtrain.models.cross_encoder.encoder import CrossEncoderModel
from embedtrain.models.dense.pair_head import interaction_of
from embedtrain.models.encoder import TextEncoder
from embedtrain.precision import Precision
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.search import search
from embedtrain.training.ranks.exchange import to_first
from embedtrain.training.ranks.processes import own_shard

METRIC = "ndcg_at_10"
"""What is best."""
RESULTS = 100
"""Results kept per query: the deepest cut-off of the reported metrics."""


@dataclass(frozen=True)
class EncodedTask:
    """The embeddings of a task, in the order of its ids."""

    queries: Vectors
    documents: Vectors
    interaction: Interaction | None = None
    """What scores pairs of vectors, where it is not the inner product."""
    device: torch.device | str = "cpu"
    """Where to search."""


@dataclass(frozen=True)
class TaskShare:
    """What one rank has encoded of a task, block by block."""

    queries: list[Vectors]
    documents: list[Vectors]


def encode_task(
    model: TextEncoder, task: RetrievalTask, precision: Precision = "auto"
) -> EncodedTask:
    """Encode the queries and the corpus of a task."""
    return join_task(model, task, [encode_task_share(model, task, Shard(), precision)])


def encode_task_share(
    model: TextEncoder,
    task: RetrievalTask,
    shard: Shard,
    precision: Precision = "auto",
    agree: Callable[[int], int] | None = None,
) -> TaskShare:
    """Encode a rank's blocks of a task; see :func:`embedtrain.encoding.blocks.encode_share`."""
    task = task.read_by(model.contract)
    queries = own_blocks(len(task.queries), shard)
    documents = own_blocks(len(task.documents), shard, _first_of_documents(task))
    return TaskShare(
        encode_share(model, task.queries, "query", queries, precision=precision, agree=agree),
        encode_share(
            model, task.documents, "document", documents, precision=precision, agree=agree
        ),
    )


def join_task(model: TextEncoder, task: RetrievalTask, shares: Sequence[TaskShare]) -> EncodedTask:
    """Join what the ranks have encoded, in the order of their numbers: the bytes that one rank would have made."""
    first = _first_of_documents(task)
    return EncodedTask(
        join_shares([share.queries for share in shares], len(task.queries)),
        join_shares([share.documents for share in shares], len(task.documents), first),
        interaction_of(model),
        model.device,
    )


def _first_of_documents(task: RetrievalTask) -> int:
    """Ranks that got no block of queries begin with the documents."""
    return len(block_starts(len(task.queries)))


def rank_task(task: RetrievalTask, encoded: EncodedTask, num_results: int = RESULTS) -> Ranking:
    """Search the corpus exactly for every query."""
    found = search(
        encoded.queries, encoded.documents, num_results, encoded.interaction, encoded.device
    )
    return rank_arrays(task.qrels, task.query_ids, task.document_ids, found.indices, found.scores)


def score_task(
    model: TextEncoder,
    task: RetrievalTask,
    precision: Precision = "auto",
    agree: Callable[[int], int] | None = None,
) -> PerQuery:
    """Encode this rank's share of a task and search all of it on the first rank; others return nothing."""
    shares = to_first(encode_task_share(model, task, own_shard(), precision, agree))
    if shares is None:
        return {}
    ranking = rank_task(task, join_task(model, task, shares))
    return score_ranking(ranking, [METRIC, "recall_at_100"])


def score_reranked(
    model: CrossEncoderModel,
    task: RetrievalTask,
    found: SearchResult,
    precision: Precision = "auto",
    agree: Callable[[int], int] | None = None,
) -> PerQuery:
    """Score this rank's share of the pairs, and put what was found in order on the first rank; others return nothing.

    The figures of the order in which the documents came stand beside, as ``first_...``.
    """
    scorer = CrossEncoder(model, precision=precision)
    scorer.execution = replace(scorer.execution, agree=agree)
    places, shard = np.argwhere(found.indices >= 0), own_shard()
    own = places[shard.rank :: shard.ranks]
    if not len(own):  # where weights are shared, the others wait for every chunk
        own = places[:1]
    pairs = [
        (task.queries[row], task.documents[found.indices[row, place]])
        for row, place in own.tolist()
    ]
    shares = to_first(scorer.logits(pairs))
    if shares is None:
        return {}
    scores = np.full(found.indices.shape, -np.inf, dtype=np.float32)
    for rank, part in enumerate(shares):
        there = places[rank :: shard.ranks]
        scores[there[:, 0], there[:, 1]] = part[: len(there)]
    new = score_lists(task, reorder(found, scores, found.indices.shape[1]))
    first = {f"first_{name}": value for name, value in score_lists(task, found).items()}
    return new | first


def score_lists(task: RetrievalTask, found: SearchResult) -> PerQuery:
    """Return the figures of results in an order; relevant documents that are not among them count as missed."""
    ids = task.query_ids, task.document_ids
    ranking = rank_arrays(task.qrels, *ids, found.indices, found.scores)
    return score_ranking(ranking, [METRIC, "mrr_at_10", "recall_at_10"])
