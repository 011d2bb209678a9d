r"""Scores of a small network that looks at two vectors together, instead of their inner product.

With a the vector of a query, b that of a document and one branch for each kind of task,

$$h = \mathrm{relu}(W_1 [a; b] + c_1), \quad x_t = \mathrm{relu}(P_t h + c_t), \quad s_t(a, b) = w^\top x_t$$

so the order of the two matters. $W_1 [a; b]$ is the sum of a part of a and a part of b, each computed once
however many pairs there are.

Source: Liao et al. (2024), https://arxiv.org/abs/2406.17262 (interaction emulation).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.interaction_types import Interaction
from embedtrain.packed import upload

InteractionTask = Literal["retrieval", "similarity"]
"""Which branch scores: of a question and its answer, or of two texts that mean the same."""


def interaction_features(
    weights: Interaction,
    query: Float[Tensor, "queries dim"],
    document: Float[Tensor, "documents dim"],
    owners: Int64[Tensor, " documents"],
    task: InteractionTask = "retrieval",
) -> Float[Tensor, "documents features"]:
    """Return the last hidden layer for document ``n`` beside query ``owners[n]``."""
    with torch.autocast(query.device.type, enabled=False):
        queries, documents = _parts(weights, query, document)
        return _branch(weights, queries[upload(owners, queries.device)] + documents, task)


def interaction_pairs(
    weights: Interaction,
    query: Float[Tensor, "queries dim"],
    document: Float[Tensor, "documents dim"],
    owners: Int64[Tensor, " documents"],
    task: InteractionTask = "retrieval",
) -> Float[Tensor, " documents"]:
    """Score document ``n`` against query ``owners[n]``."""
    features = interaction_features(weights, query, document, owners, task)
    with torch.autocast(query.device.type, enabled=False):
        return features @ weights.output.to(features.dtype)


def interaction_scores(
    weights: Interaction,
    query: Float[Tensor, "queries dim"],
    document: Float[Tensor, "documents dim"],
    task: InteractionTask = "retrieval",
) -> Float[Tensor, "queries documents"]:
    """Score every query against every document; memory is that of the hidden layer of every pair."""
    with torch.autocast(query.device.type, enabled=False):
        queries, documents = _parts(weights, query, document)
        features = _branch(weights, queries[:, None] + documents, task)
        return features @ weights.output.to(features.dtype)


def _parts(weights: Interaction, query: Tensor, document: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the queries and the documents add to the hidden layer."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    first, second = weights.hidden.to(dtype).chunk(2, dim=1)
    bias = weights.hidden_bias.to(dtype)
    return query.to(dtype) @ first.T, document.to(dtype) @ second.T + bias


def _branch(
    weights: Interaction, summed: Float[Tensor, "*pairs hidden"], task: InteractionTask
) -> Float[Tensor, "*pairs features"]:
    matrix, bias = (
        (weights.retrieval, weights.retrieval_bias)
        if task == "retrieval"
        else (weights.similarity, weights.similarity_bias)
    )
    return F.relu(F.linear(F.relu(summed), matrix.to(summed.dtype), bias.to(summed.dtype)))
