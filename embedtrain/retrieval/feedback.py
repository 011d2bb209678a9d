r"""Pseudo-relevance feedback with several vectors per text (ColBERT-PRF).

The tokens of the best documents of a first search are clustered; centroids that stand for rare tokens are
added to the query with a weight, and the search is done again:

$$s(q, d) = \sum_{i \in q} \max_j \langle q_i, d_j \rangle
+ \beta \sum_{c \in \text{kept}} \mathrm{idf}(c) \max_j \langle c, d_j \rangle$$

A weight is at least 0, so it is put into the vector, and every index searches the longer query as it is.

Source: Wang et al. (2021), https://arxiv.org/abs/2106.11251.
"""

from dataclasses import replace
from typing import Literal

import faiss
import numpy as np
from jaxtyping import Float32, Int64
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt, model_validator

from embedtrain.errors import UserError
from embedtrain.retrieval.exact import SearchResult, search_exact
from embedtrain.retrieval.faiss_index import Index, search_index
from embedtrain.retrieval.late_interaction import LateInteractionIndex, check_search
from embedtrain.retrieval.rerank import rerank, select_texts
from embedtrain.retrieval.token_frequency import TokenFrequencies
from embedtrain.types import Similarity, TokenVectors

KMEANS_ITERATIONS = 25


class Feedback(BaseModel):
    """How queries are expanded by the documents that they find."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    num_documents: PositiveInt = 3
    """Documents of the first search that are taken as relevant."""
    num_clusters: PositiveInt = 24
    """Clusters of their tokens; no more than there are tokens."""
    num_neighbors: PositiveInt = 10
    """Tokens of the corpus next to a centroid; the id that most of them have says what it stands for."""
    num_expansions: PositiveInt = 10
    """Centroids added to the query, those of the rarest tokens."""
    beta: NonNegativeFloat = 1.0
    """Weight of an added vector beside its idf; 0 is the first search again."""
    second_pass: Literal["search", "rerank"] = "search"
    """Search again with the longer query, or only sort the results of the first search anew."""
    similarity: Similarity = "cosine"
    """``cosine`` gives centroids the length 1, as the tokens have; the paper's code does not."""
    ignored_ids: tuple[int, ...] = ()
    """Ids that are never added, such as those of special tokens."""
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> "Feedback":
        if self.num_expansions > self.num_clusters:
            raise ValueError("num_expansions must not be larger than num_clusters")
        return self


def search_with_feedback(
    index: LateInteractionIndex,
    queries: TokenVectors,
    documents: TokenVectors,
    num_results: int,
    feedback: Feedback,
    *,
    token_index: Index | None = None,
) -> SearchResult:
    """Search, expand the queries by what was found, and search again.

    Args:
        index: Searches the documents, twice.
        queries: The queries.
        documents: The vectors of the index's documents, with ids.
        num_results: Documents wanted for each query.
        feedback: How queries are expanded.
        token_index: A faiss index of all document tokens, which finds the neighbors of centroids; None
            compares with every token.
    """
    first = index.search(queries, max(num_results, feedback.num_documents))
    longer = expand_queries(queries, documents, first, feedback, token_index=token_index)
    if feedback.second_pass == "rerank":
        return rerank(longer, documents, first.indices, num_results)
    return index.search(longer, num_results)


def expand_queries(
    queries: TokenVectors,
    documents: TokenVectors,
    first: SearchResult,
    feedback: Feedback,
    *,
    token_index: Index | None = None,
) -> TokenVectors:
    """Add weighted centroids to each query; their ids are those of the tokens they stand for."""
    check_search(queries, documents, 1)
    frequencies = TokenFrequencies.count(documents)
    texts, lengths, ids = [], [], []
    for number, found in enumerate(first.indices):
        query = queries.part(number, number + 1)
        relevant = found[: feedback.num_documents]
        chosen = select_texts(documents, relevant[relevant >= 0])
        added, added_ids = _expansions(chosen, documents, frequencies, feedback, token_index)
        texts += [np.asarray(query.values, dtype=np.float32), added]
        lengths.append(len(query.values) + len(added))
        if query.ids is not None:
            ids += [query.ids, added_ids]
    return replace(
        queries,
        values=np.concatenate(texts),
        lengths=np.array(lengths, dtype=np.int64),
        ids=np.concatenate(ids) if ids else None,
    )


def _expansions(
    relevant: TokenVectors,
    documents: TokenVectors,
    frequencies: TokenFrequencies,
    feedback: Feedback,
    token_index: Index | None,
) -> tuple[Float32[np.ndarray, "kept dim"], Int64[np.ndarray, " kept"]]:
    """Return the weighted centroids that are added to one query, rarest first, and their ids."""
    if len(relevant.values) == 0:
        return np.zeros((0, relevant.values.shape[1]), np.float32), np.zeros(0, np.int64)
    centroids = _cluster(np.asarray(relevant.values, dtype=np.float32), feedback)
    if token_index is None:
        neighbors = search_exact(centroids, documents.values, feedback.num_neighbors).indices
    else:
        neighbors = search_index(token_index, centroids, feedback.num_neighbors).indices
    assert documents.ids is not None
    ids = np.array([_commonest(documents.ids[row[row >= 0]]) for row in neighbors], dtype=np.int64)
    idf = frequencies.inverse(ids)
    order = np.argsort(-idf, kind="stable")
    kept = order[~np.isin(ids[order], (-1, *feedback.ignored_ids))][: feedback.num_expansions]
    weights = (feedback.beta * idf[kept]).astype(np.float32)
    return centroids[kept] * weights[:, None], ids[kept]


def _cluster(
    tokens: Float32[np.ndarray, "tokens dim"], feedback: Feedback
) -> Float32[np.ndarray, "clusters dim"]:
    """Find the centroids of tokens; as many tokens as clusters are centroids themselves."""
    if not np.isfinite(tokens).all():
        raise UserError("documents", "hold NaN or infinity", cure="Check the model and its input")
    if len(tokens) <= feedback.num_clusters:
        return tokens
    kmeans = faiss.Kmeans(
        tokens.shape[1],
        feedback.num_clusters,
        niter=KMEANS_ITERATIONS,
        seed=feedback.seed,
        spherical=feedback.similarity == "cosine",
        min_points_per_centroid=1,
        max_points_per_centroid=len(tokens),
    )
    kmeans.train(tokens)
    centroids: Float32[np.ndarray, "clusters dim"] = kmeans.centroids
    return centroids


def _commonest(ids: Int64[np.ndarray, " neighbors"]) -> int:
    """Return the id that occurs most often, the nearest of equals; -1 if there is none."""
    if len(ids) == 0:
        return -1
    distinct, first, counts = np.unique(ids, return_index=True, return_counts=True)
    return int(distinct[np.lexsort((first, -counts))[0]])
