"""InfoNCE of scores that are not inner products, such as MaxSim: they exist already, so nothing is tiled."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.ops.infonce.problem import (
    PLAIN,
    InfoNCEOptions,
    InfoNCEOutput,
    Reduction,
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
    query_ids: Int64[Tensor, " queries"] | None = None,
    document_ids: Int64[Tensor, " documents"] | None = None,
    known_positives: Int64[Tensor, "queries known"] | None = None,
    owners: Int64[Tensor, " documents"] | None = None,
    all_query_ids: Int64[Tensor, " all_queries"] | None = None,
    all_known_positives: Int64[Tensor, "all_queries all_known"] | None = None,
    options: InfoNCEOptions = PLAIN,
    reduction: Reduction = "mean",
) -> InfoNCEOutput:
    """Compute :func:`embedtrain.ops.infonce.loss.infonce`, which defines every argument, from given scores.

    Args:
        scores: Of every query and document.
        positives: Columns of ``scores``.
        temperature: One number, or one per query.
        transposed: Scores of all queries with each query's first positive, for ``document_to_query``;
            without it they are taken from ``scores``, which then must hold all queries.
        query_ids: As in ``infonce``, like all that follow.
        document_ids: See there.
        known_positives: See there.
        owners: See there.
        all_query_ids: See there.
        all_known_positives: See there.
        options: Directions between two queries or two documents have no MaxSim and are refused.
        reduction: ``mean`` or ``sum``.
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
        query_ids=query_ids,
        document_ids=document_ids,
        known_positives=known_positives,
        owners=owners,
        all_query=None if transposed is None else scores.new_empty(num_all, 0),
        all_query_ids=all_query_ids,
        all_known_positives=all_known_positives,
        options=options,
        reduction=reduction,
    )
    if transposed is None and "document_to_query" in options.directions:
        transposed = scores[:, positives[:, 0]].T
    with torch.autocast(scores.device.type, enabled=False):
        return infonce_reference(problem, Scores(scores.to(problem.dtype), transposed))
