r"""Scores of networks that queries bring along: each query's numbers are the weights of a network that reads documents.

With a document's vector $x_0$ and a query's matrices $W_l$, biases $b_l$ and weights $w$ of the score,

$$y_l = \mathrm{LN}(\mathrm{relu}(x_{l-1} W_l + b_l)), \quad x_l = y_l + x_{l-1}\ (l < L), \quad x_L = y_L, \quad s = x_L^\top w$$

LN learns nothing. Without any layer the score is the inner product of x and w.

Source: Killingback et al. (2025), Hypencoder, https://arxiv.org/abs/2502.05364.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.interaction_types import QueryNetwork
from embedtrain.ops.grouping import columns_by_owner
from embedtrain.packed import upload


def network_scores(
    form: QueryNetwork,
    query: Float[Tensor, "queries numbers"],
    document: Float[Tensor, "documents dim"],
) -> Float[Tensor, "queries documents"]:
    """Score every document by every query's network; memory is that of a hidden layer of every pair."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    return _run(form, query.to(dtype), document.to(dtype)[None])


def network_pairs(
    form: QueryNetwork,
    query: Float[Tensor, "queries numbers"],
    document: Float[Tensor, "documents dim"],
    owners: Int64[Tensor, " documents"],
) -> Float[Tensor, " documents"]:
    """Score document ``n`` by the network of query ``owners[n]``; a matrix is never copied for each document.

    Owners on the CPU keep the host from waiting.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    columns = columns_by_owner(owners.cpu(), len(query))
    used = columns >= 0
    places = upload(used.flatten().nonzero()[:, 0], document.device)
    chosen = upload(columns[used], document.device)
    grid = document.new_zeros(columns.numel(), document.shape[1], dtype=dtype)
    grid = grid.index_put((places,), document.to(dtype)[chosen]).view(*columns.shape, -1)
    found = _run(form, query.to(dtype), grid).flatten()[places]
    return found.new_zeros(len(document)).index_put((chosen,), found)


def _run(
    form: QueryNetwork,
    query: Float[Tensor, "queries numbers"],
    document: Float[Tensor, "one_or_queries documents dim"],
) -> Float[Tensor, "queries documents"]:
    """Run the networks of queries over the documents of each, or of all."""
    dim, state, start = form.dim, document, 0
    for layer in range(1, form.num_layers + 1):
        matrix = query[:, start : start + dim * dim].reshape(-1, dim, dim)
        bias = query[:, start + dim * dim : start + dim * dim + dim]
        start += dim * dim + dim
        inner = F.layer_norm(F.relu(state @ matrix + bias[:, None]), (dim,))
        state = inner + state if layer < form.num_layers else inner
    return (state @ query[:, start:, None])[:, :, 0]
