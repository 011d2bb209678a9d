"""InfoNCE of a batch's outputs, whether a text has one vector or several."""

import torch
from jaxtyping import Float
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.ops.backend import Backend, load_fused
from embedtrain.ops.infonce.loss import choose_backend, infonce, infonce_of_scores
from embedtrain.ops.infonce.nested import NestedOutput, Sizes, can_be_nested, infonce_nested
from embedtrain.ops.infonce.problem import (
    InfoNCEOptions,
    InfoNCEOutput,
    InfoNCEProblem,
    Known,
    Temperature,
    make_problem,
)
from embedtrain.ops.interaction import InteractionTask
from embedtrain.ops.scorers import Scorer, scores_in_blocks
from embedtrain.ops.similarity import all_scores, take
from embedtrain.packed import upload
from embedtrain.types import RetrievalOutputs


def contrast(
    outputs: RetrievalOutputs,
    temperature: Temperature,
    options: InfoNCEOptions,
    backend: Backend = "auto",
    task: InteractionTask = "retrieval",
) -> InfoNCEOutput:
    """Compute :func:`embedtrain.ops.infonce.loss.infonce`, which defines every option, from outputs.

    Dense scores are never stored; those of late interaction are, and those that the model itself gives pairs or
    computes of them by something else than the inner product, for ``task``.
    """
    relevance, everyone = outputs.relevance, outputs.all_queries
    if outputs.pair_scores is not None:
        return contrast_scores(_of_pairs(outputs, options), outputs, temperature, options)
    if outputs.interaction is not None:
        scores = scores_in_blocks(outputs, Scorer(outputs.interaction, task))
        return contrast_scores(scores, outputs, temperature, options)
    shared = _relevance(outputs, options)
    if isinstance(outputs.query, Tensor) and isinstance(outputs.document, Tensor):
        return infonce(
            outputs.query,
            outputs.document,
            relevance.positives,
            temperature,
            backend=backend,
            **shared,
        )
    transposed = None
    if everyone is not None:
        anchors = take(outputs.document, relevance.on_host.positives[:, 0])
        transposed = all_scores(everyone.embeddings, anchors, backend=backend).T
    scores = all_scores(outputs.query, outputs.document, backend=backend)
    return infonce_of_scores(
        scores, relevance.positives, temperature, transposed=transposed, **shared
    )


def contrast_scores(
    scores: Float[Tensor, "queries documents"],
    outputs: RetrievalOutputs,
    temperature: Temperature,
    options: InfoNCEOptions,
) -> InfoNCEOutput:
    """Compute :func:`contrast` of scores of another kind, of own queries with all documents."""
    positives = outputs.relevance.positives
    return infonce_of_scores(scores, positives, temperature, **_relevance(outputs, options))


def contrast_nested(
    outputs: RetrievalOutputs,
    temperature: Temperature,
    options: InfoNCEOptions,
    sizes: Sizes,
    *,
    normalize: bool,
    backend: Backend = "auto",
) -> NestedOutput | None:
    """Compute :func:`contrast` at several prefixes in one pass over the scores; None where that is not offered.

    ``outputs`` are at the full size, ``sizes`` ascend; ``normalize`` divides prefixes by their norms.
    """
    query, document = outputs.query, outputs.document
    if not isinstance(query, Tensor) or not isinstance(document, Tensor):
        return None
    positives, known = outputs.relevance.positives, _relevance(outputs, options)
    problem = make_problem(query, document, positives, temperature, **known)
    if not can_be_nested(problem):
        return None

    def lacks(problem: InfoNCEProblem) -> str:
        found: str = load_fused("infonce", "fused_nested").unsupported_nested(problem, sizes)
        return found

    compute = None
    if backend == "auto":
        backend = choose_backend(problem, lacks)
    elif backend == "fused" and lacks(problem):
        return None  # the caller computes each size by itself, in kernels as well
    if backend == "fused":
        compute = load_fused("infonce", "fused_nested").compute_fused
    with torch.autocast(query.device.type, enabled=False):  # no logits in half precision
        return infonce_nested(problem, sizes, normalize=normalize, compute=compute)


def _of_pairs(
    outputs: RetrievalOutputs, options: InfoNCEOptions
) -> Float[Tensor, "queries documents"]:
    """Lay the scores of pairs out by query and candidate, 0 where there is no pair.

    Raises:
        UserError: If the options ask for scores of other pairs.
    """
    asked = options.negatives, options.directions
    if asked != ("own", ("query_to_document",)):
        raise UserError(
            "objective.negatives",
            "compares every query with every document, which a cross-encoder would have to read in pairs",
            got=asked,
            cure="Set negatives: own, and directions: [query_to_document]",
        )
    scores = outputs.pair_scores
    assert scores is not None
    empty = scores.new_zeros(len(outputs.query), len(scores))
    owners = outputs.relevance.on_host.owners
    own = (owners < len(outputs.query)).nonzero()[:, 0]
    rows, columns = upload(torch.stack([owners[own], own]), scores.device)
    return empty.index_put((rows, columns), scores[columns])


def _relevance(outputs: RetrievalOutputs, options: InfoNCEOptions) -> Known:
    relevance, everyone = outputs.relevance, outputs.all_queries
    vectors = None if everyone is None else everyone.embeddings
    return {
        "query_ids": relevance.query_ids,
        "document_ids": relevance.document_ids,
        "known_positives": relevance.known_positives,
        "owners": relevance.owners,
        "own_rows": relevance.own_rows,
        "relevance": relevance,
        "all_query": vectors if isinstance(vectors, Tensor) else None,
        "all_query_ids": None if everyone is None else everyone.ids,
        "all_known_positives": None if everyone is None else everyone.known_positives,
        "options": options,
    }
