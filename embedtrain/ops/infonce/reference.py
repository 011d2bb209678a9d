"""InfoNCE with the whole score matrix: the definition that every other backend is tested against."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from embedtrain.ops.infonce.problem import InfoNCEOutput, InfoNCEProblem
from embedtrain.ops.infonce.rows import RowFigures, RowSums, row_losses, summarise


class Scores(NamedTuple):
    """What is compared: inner products, or scores that come from elsewhere such as MaxSim."""

    query_to_document: Float[Tensor, "queries documents"]
    document_to_query: Float[Tensor, "queries all_queries"] | None = None
    """Each query's first positive against all queries."""
    query_to_query: Float[Tensor, "queries all_queries"] | None = None
    document_to_document: Float[Tensor, "queries documents"] | None = None
    """Each query's first positive against all documents."""


def infonce_reference(problem: InfoNCEProblem, scores: Scores | None = None) -> InfoNCEOutput:
    """Compute :func:`embedtrain.ops.infonce.loss.infonce` in plain torch, with autograd and no tiles.

    ``scores`` take the place of the inner products of the embeddings, which then may be empty.
    """
    if scores is None:
        scores = _inner_products(problem)
    temperature, used = problem.temperature, problem.positive_is_used
    similarity = scores.query_to_document
    positives = similarity.gather(1, problem.positives.clamp_min(0))
    best = positives.detach().masked_fill(~used, -torch.inf).amax(1)

    eligible = ~_is_positive(problem)
    if problem.options.negatives != "all":
        own = _is_own(problem)
        eligible &= own if problem.options.negatives == "own" else ~own
    known = eligible & _is_relevant(problem)
    suspected = eligible & ~known & _is_suspected(similarity, best, problem)
    logits = similarity / temperature[:, None] + problem.options.hardness * similarity.detach()
    logits = logits.masked_fill(~eligible | known | suspected, -torch.inf)

    blocks = [logits, *_other_directions(problem, scores, best)]
    sums = RowSums(
        negatives=torch.stack([block.logsumexp(1) for block in blocks], 1),
        positives=positives,
        temperature=temperature,
        logits=torch.stack([block.where(block.isfinite(), 0.0).sum(1) for block in blocks], 1),
    )
    counts = torch.stack([block.isfinite().sum(1) for block in blocks], 1).to(problem.dtype)
    losses = row_losses(sums, counts, used, problem.options)
    hardest = logits.detach().amax(1) * temperature.detach()
    figures = RowFigures(best, hardest, eligible.sum(1), known.sum(1), suspected.sum(1))
    return summarise(losses.sum() * problem.share, figures)


def _inner_products(problem: InfoNCEProblem) -> Scores:
    query, document = problem.query.to(problem.dtype), problem.document.to(problem.dtype)
    all_query, anchor = problem.all_query.to(problem.dtype), document[problem.positives[:, 0]]
    directions = problem.options.directions
    return Scores(
        query_to_document=query @ document.T,
        document_to_query=anchor @ all_query.T if "document_to_query" in directions else None,
        query_to_query=query @ all_query.T if "query_to_query" in directions else None,
        document_to_document=anchor @ document.T if "document_to_document" in directions else None,
    )


def _other_directions(
    problem: InfoNCEProblem, scores: Scores, best: Float[Tensor, " queries"]
) -> list[Float[Tensor, "queries _"]]:
    """Logits of the negatives of the directions beside query-to-document."""
    blocks = []
    if scores.document_to_query is not None:
        blocks.append((scores.document_to_query, _answers(problem)))
    if scores.query_to_query is not None:
        blocks.append((scores.query_to_query, _is_same_query(problem)))
    if scores.document_to_document is not None:
        related = _is_positive(problem) | _is_relevant(problem) | _is_own(problem)
        blocks.append((scores.document_to_document, related))
    return [
        (similarity / problem.temperature[:, None]).masked_fill(
            excluded | _is_suspected(similarity, best, problem), -torch.inf
        )
        for similarity, excluded in blocks
    ]


def _is_positive(problem: InfoNCEProblem) -> Bool[Tensor, "queries documents"]:
    columns = torch.arange(len(problem.document), device=problem.query.device)
    return (problem.positives[:, :, None] == columns).any(1)


def _contains(
    ids: Int64[Tensor, "rows ids"], wanted: Int64[Tensor, " columns"]
) -> Bool[Tensor, "rows columns"]:
    found = ids.new_zeros(len(ids), len(wanted), dtype=torch.bool)
    for column in ids.T:
        found |= (column[:, None] == wanted) & (column[:, None] >= 0)
    return found


def _is_relevant(problem: InfoNCEProblem) -> Bool[Tensor, "queries documents"]:
    """By id: the document is a known positive of the query or a copy of one of its positives."""
    if problem.document_ids is None:
        return torch.zeros_like(_is_positive(problem))
    return _contains(problem.relevant_ids, problem.document_ids)


def _is_own(problem: InfoNCEProblem) -> Bool[Tensor, "queries documents"]:
    """The query brought the document into the batch."""
    assert problem.owners is not None
    return problem.own_rows[:, None] == problem.owners


def _is_same_query(problem: InfoNCEProblem) -> Bool[Tensor, "queries all_queries"]:
    columns = torch.arange(len(problem.all_query), device=problem.query.device)
    same = problem.rows[:, None] == columns
    if problem.query_ids is not None and problem.all_query_ids is not None:
        same |= _contains(problem.query_ids[:, None], problem.all_query_ids)
    return same


def _answers(problem: InfoNCEProblem) -> Bool[Tensor, "queries all_queries"]:
    """Row i, column k: the first positive of query i also answers query k."""
    anchor, num_all = problem.positives[:, 0], len(problem.all_query)
    answers = problem.query.new_zeros(len(anchor), num_all, dtype=torch.bool)
    answers[:, problem.rows] = _is_positive(problem)[:, anchor].T
    if problem.document_ids is not None and problem.all_relevant_ids is not None:
        answers |= _contains(problem.all_relevant_ids, problem.document_ids[anchor]).T
    return answers


def _is_suspected(
    similarity: Float[Tensor, "queries candidates"],
    best: Float[Tensor, " queries"],
    problem: InfoNCEProblem,
) -> Bool[Tensor, "queries candidates"]:
    """The candidate scores so near the best positive that it may be a positive itself."""
    return similarity > problem.threshold(best)[:, None]
