r"""Scores of queries with several vectors, to which a document's vector attends before it is compared.

With $y_1 \dots y_m$ the vectors of a query and d that of a document,

$$s = d^\top \sum_i w_i y_i, \quad w = \mathrm{softmax}(d^\top y_1, \dots, d^\top y_m)$$

Source: Humeau et al. (2019), Poly-encoder, https://arxiv.org/abs/1905.01969.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.interaction_types import CodeAttention
from embedtrain.packed import upload


def code_scores(
    form: CodeAttention,
    query: Float[Tensor, "queries numbers"],
    document: Float[Tensor, "documents dim"],
) -> Float[Tensor, "queries documents"]:
    """Score every query against every document."""
    codes, documents = _codes(form, query), _widened(document)
    return _attended(codes @ documents.T, dim=1)


def code_pairs(
    form: CodeAttention,
    query: Float[Tensor, "queries numbers"],
    document: Float[Tensor, "documents dim"],
    owners: Int64[Tensor, " documents"],
) -> Float[Tensor, " documents"]:
    """Score document ``n`` against query ``owners[n]``."""
    own = _codes(form, query)[upload(owners, query.device)]
    return _attended((own * _widened(document)[:, None]).sum(2), dim=1)


def _codes(form: CodeAttention, query: Tensor) -> Float[Tensor, "queries codes dim"]:
    return _widened(query).reshape(len(query), form.num_codes, -1)


def _widened(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _attended(products: Tensor, dim: int) -> Tensor:
    """Return the products of a document with a query's vectors, weighed by their own softmax."""
    return (products.softmax(dim) * products).sum(dim)
