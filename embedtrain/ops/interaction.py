r"""Scores of pairs by something else than their inner product, whichever the model has.

Networks that queries bring along are in :mod:`embedtrain.ops.query_network`, vectors that a document attends to in
:mod:`embedtrain.ops.code_attention`. Here is the network that looks at two vectors together. With a the vector of a query, b that of a document and one branch for each kind of task,

$$h = \mathrm{relu}(W_1 [a; b] + c_1), \quad x_t = \mathrm{relu}(P_t h + c_t), \quad s_t(a, b) = w^\top x_t$$

so the order of the two matters. $W_1 [a; b]$ is the sum of a part of a and a part of b, each computed once
however many pairs there are.

The second network compares coordinates as well, $s(a, b) = w^\top \mathrm{relu}(W [a; b; a b; |a - b|] + c) + d$.

Source: Liao et al. (2024), https://arxiv.org/abs/2406.17262 (interaction emulation); Barkan et al. (2020),
https://arxiv.org/abs/1908.05161 (DSE).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.interaction_types import (
    CodeAttention,
    ComparingNetwork,
    Interaction,
    JointNetwork,
    QueryNetwork,
)
from embedtrain.ops.code_attention import code_pairs, code_scores
from embedtrain.ops.query_network import network_pairs, network_scores
from embedtrain.packed import upload

InteractionTask = Literal["retrieval", "similarity"]
"""Which branch scores: of a question and its answer, or of two texts that mean the same."""


def numbers_per_pair(weights: Interaction) -> int:
    """Return how many numbers a score holds while it is computed."""
    if isinstance(weights, QueryNetwork):
        return weights.dim
    if isinstance(weights, CodeAttention):
        return weights.num_codes
    if isinstance(weights, ComparingNetwork):  # products and differences are of pairs, too
        return len(weights.hidden_bias) + weights.hidden.shape[1] // 2
    assert isinstance(weights, JointNetwork)
    return len(weights.hidden_bias)


def interaction_features(
    weights: JointNetwork,
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
    query: Float[Tensor, "queries numbers"],
    document: Float[Tensor, "documents dim"],
    owners: Int64[Tensor, " documents"],
    task: InteractionTask = "retrieval",
) -> Float[Tensor, " documents"]:
    """Score document ``n`` against query ``owners[n]``; only a joint network knows tasks."""
    if not isinstance(weights, JointNetwork):
        with torch.autocast(query.device.type, enabled=False):
            if isinstance(weights, QueryNetwork):
                return network_pairs(weights, query, document, owners)
            if isinstance(weights, ComparingNetwork):
                asked = query[upload(owners, query.device)]
                return _compared(weights, asked, document)
            assert isinstance(weights, CodeAttention)
            return code_pairs(weights, query, document, owners)
    features = interaction_features(weights, query, document, owners, task)
    with torch.autocast(query.device.type, enabled=False):
        return features @ weights.output.to(features.dtype)


def interaction_scores(
    weights: Interaction,
    query: Float[Tensor, "queries numbers"],
    document: Float[Tensor, "documents dim"],
    task: InteractionTask = "retrieval",
) -> Float[Tensor, "queries documents"]:
    """Score every query against every document; memory is that of :func:`numbers_per_pair` for each."""
    with torch.autocast(query.device.type, enabled=False):
        if isinstance(weights, QueryNetwork):
            return network_scores(weights, query, document)
        if isinstance(weights, CodeAttention):
            return code_scores(weights, query, document)
        if isinstance(weights, ComparingNetwork):
            return _compared(weights, query[:, None], document)
        assert isinstance(weights, JointNetwork)
        queries, documents = _parts(weights, query, document)
        features = _branch(weights, queries[:, None] + documents, task)
        return features @ weights.output.to(features.dtype)


def _parts(weights: JointNetwork, query: Tensor, document: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the queries and the documents add to the hidden layer."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    first, second = weights.hidden.to(dtype).chunk(2, dim=1)
    bias = weights.hidden_bias.to(dtype)
    return query.to(dtype) @ first.T, document.to(dtype) @ second.T + bias


def _compared(
    weights: ComparingNetwork,
    query: Float[Tensor, "*some dim"],
    document: Float[Tensor, "documents dim"],
) -> Float[Tensor, "*pairs"]:
    """Score vectors that stand beside each other, or may be laid so; what one of both adds is computed once."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    query, document = query.to(dtype), document.to(dtype)
    first, second, product, difference = weights.hidden.to(dtype).chunk(4, dim=1)
    summed = query @ first.T + document @ second.T + weights.hidden_bias.to(dtype)
    summed = summed + (query * document) @ product.T + (query - document).abs() @ difference.T
    return F.relu(summed) @ weights.output.to(dtype) + weights.output_bias.to(dtype)


def _branch(
    weights: JointNetwork, summed: Float[Tensor, "*pairs hidden"], task: InteractionTask
) -> Float[Tensor, "*pairs features"]:
    matrix, bias = (
        (weights.retrieval, weights.retrieval_bias)
        if task == "retrieval"
        else (weights.similarity, weights.similarity_bias)
    )
    return F.relu(F.linear(F.relu(summed), matrix.to(summed.dtype), bias.to(summed.dtype)))
