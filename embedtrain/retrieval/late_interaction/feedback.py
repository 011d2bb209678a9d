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
from pydantic import NonNegativeFloat, model_validator

from embedtrain.errors import UserError
from embedtrain.retrieval.dense.exact import SearchResult, search_exact
from embedtrain.retrieval.dense.faiss_index import Index, search_index
from embedtrain.retrieval.late_interaction.exact import LateInteractionIndex, check_search
from embedtrain.retrieval.late_interaction.rerank import rerank
from embedtrain.retrieval.late_interaction.token_frequency import TokenFrequencies
from embedtrain.section import Count, Section
from embedtrain.types import Similarity, TokenVectors

KMEANS_ITERATIONS = 25


class Feedback(Section):
    """How queries are expanded by the documents that they find."""

    num_documents: Count = 3
    """Documents of the first search that are taken as relevant."""
    num_clusters: Count = 24
    """Clusters of their tokens; no more than there are tokens."""
    num_neighbors: Count = 10
    """Tokens of the corpus next to a centroid; the id that most of them have says what it stands for."""
    num_expansions: Count = 10
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
    centroids = [
        _cluster(documents.select(row[row >= 0]), feedback)
        for row in first.indices[:, : feedback.num_documents]
    ]
    ids = _ids_of(np.concatenate(centroids), documents, feedback, token_index)
    idf = TokenFrequencies.count(documents).inverse(ids)
    idf[np.isin(ids, (-1, *feedback.ignored_ids))] = -np.inf
    values, all_ids, lengths, start = [], [], [], 0
    for number, found in enumerate(centroids):
        places = slice(start, start + len(found))
        start += len(found)
        order = np.argsort(-idf[places], kind="stable")[: feedback.num_expansions]
        kept = order[np.isfinite(idf[places][order])]
        weights = (feedback.beta * idf[places][kept]).astype(np.float32)
        query = queries.part(number, number + 1)
        values += [np.asarray(query.values, dtype=np.float32), found[kept] * weights[:, None]]
        if query.ids is not None:
            all_ids += [query.ids, ids[places][kept]]
        lengths.append(len(query.values) + len(kept))
    return replace(
        queries,
        values=np.concatenate(values),
        lengths=np.array(lengths, dtype=np.int64),
        ids=np.concatenate(all_ids) if all_ids else None,
    )


def _ids_of(
    centroids: Float32[np.ndarray, "centroids dim"],
    documents: TokenVectors,
    feedback: Feedback,
    token_index: Index | None,
) -> Int64[np.ndarray, " centroids"]:
    """Return the id that most tokens near each centroid have; -1 where there is none."""
    if documents.ids is None:
        raise UserError("feedback", "needs ids of the documents' tokens", cure="Encode with ids")
    ids = np.full(len(centroids), -1, dtype=np.int64)
    if len(centroids) == 0:
        return ids
    if token_index is None:
        neighbors = search_exact(centroids, documents.values, feedback.num_neighbors).indices
    else:
        neighbors = search_index(token_index, centroids, feedback.num_neighbors).indices
    for place, row in enumerate(neighbors):
        if (row >= 0).any():
            ids[place] = _commonest(documents.ids[row[row >= 0]])
    return ids


def _cluster(texts: TokenVectors, feedback: Feedback) -> Float32[np.ndarray, "clusters dim"]:
    """Find the centroids of all tokens; as many tokens as clusters are centroids themselves."""
    tokens = np.asarray(texts.values, dtype=np.float32)
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
    """Return the id that occurs most often, the nearest of equals."""
    distinct, first, counts = np.unique(ids, return_index=True, return_counts=True)
    return int(distinct[np.lexsort((first, -counts))[0]])
