"""InfoNCE of scores that are not inner products, such as MaxSim: they exist already, so nothing is tiled."""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.ops.infonce.problem import (
    PLAIN,
    InfoNCEOptions,
    InfoNCEOutput,
    Temperature,
    make_problem,
)
from embedtrain.ops.infonce.reference import Scores, infonce_reference


def infonce_of_scores(
    scores: Float[Tensor, "queries documents"],
    positives: Int64[Tensor, "queries positives"],
    temperature: Temperature,
    *,
    transposed: Float[Tensor, "queries all_queries"] | None = None,
    options: InfoNCEOptions = PLAIN,
    **known: Any,  # noqa: ANN401 - as in infonce
) -> InfoNCEOutput:
    """Compute :func:`embedtrain.ops.infonce.loss.infonce`, which defines every argument, from given scores.

    Args:
        scores: Of every query and document.
        positives: Columns of ``scores``.
        temperature: One number, or one per query.
        transposed: Scores of all queries with each query's first positive, for ``document_to_query``;
            without it they are taken from ``scores``, which then must hold all queries.
        options: Directions between two queries or two documents have no MaxSim and are refused.
        known: What ``infonce`` may be told of queries, documents and the reduction.
    """
    if {"query_to_query", "document_to_document"} & set(options.directions):
        raise UserError(
            "objective.directions",
            "compare texts of one side, which late interaction does not define",
            got=options.directions,
            cure="Use query_to_document and document_to_query",
        )
    num_all = len(scores) if transposed is None else transposed.shape[1]
    problem = make_problem(
        scores.new_empty(len(scores), 0),
        scores.new_empty(scores.shape[1], 0),
        positives,
        temperature,
        all_query=None if transposed is None else scores.new_empty(num_all, 0),
        options=options,
        **known,
    )
    if transposed is None and "document_to_query" in options.directions:
        transposed = scores[:, positives[:, 0]].T
    with torch.autocast(scores.device.type, enabled=False):
        return infonce_reference(problem, Scores(scores.to(problem.dtype), transposed))
