"""From a problem to what the kernels compare: anchors, candidates and masks of each direction.

Nothing here reads a value on the device: lists of ids are rectangles, and their shape decides.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from embedtrain_kernels.infonce import LOG2_E
from embedtrain_kernels.infonce_arguments import Candidates, Scores
from jaxtyping import Float, Int, Int64
from torch import Tensor

from embedtrain.ops.backend import aligned_rows
from embedtrain.ops.infonce.plan import is_symmetric
from embedtrain.ops.infonce.problem import InfoNCEProblem

Numbers = Int[Tensor, "rows listed"]


@dataclass(frozen=True)
class Direction:
    """One matrix of scores: whose rows they are, against whom, and who is a negative."""

    side: Literal["query", "document"]
    """Whose gradient the anchors' is: that of the queries, or of their first positives."""
    target: Literal["document", "all_query"]
    scores: Scores
    candidates: Candidates
    columns: bool = False
    """The columns are anchors of the transposed direction."""


def fused_directions(
    problem: InfoNCEProblem, best: Float[Tensor, " queries"]
) -> tuple[Direction, ...]:
    """Return the directions, query-to-document first, in the order of the chunked form.

    ``best`` is the similarity of each query's best positive.
    """
    options = problem.options
    shared = is_symmetric(problem)
    found = [_query_to_document(problem, best, columns=shared)]
    wanted = () if shared else options.directions
    if "document_to_query" in wanted:
        found.append(_document_to_query(problem, best))
    if "query_to_query" in wanted:
        found.append(_query_to_query(problem, best))
    if "document_to_document" in wanted:
        found.append(_document_to_document(problem, best))
    return tuple(found)


def query_candidates(problem: InfoNCEProblem) -> Candidates:
    """Return the masks of query-to-document without guards."""
    return Candidates(labels=_numbers(problem.positives), **_relevant(problem))


def known_counts(problem: InfoNCEProblem) -> Int64[Tensor, " queries"]:
    """Count the documents that a query's ids exclude beside its positives, over all documents."""
    if problem.document_ids is None:
        return torch.zeros_like(problem.rows)
    ordered = problem.document_ids.sort().values
    wanted = problem.relevant_ids.contiguous()
    counts = torch.searchsorted(ordered, wanted, right=True) - torch.searchsorted(ordered, wanted)
    used, listed = problem.positive_is_used, problem.positives.clamp_min(0)
    own = used & (problem.document_ids[listed] >= 0)
    return counts.masked_fill(wanted < 0, 0).sum(1) - own.sum(1)


def eligible_counts(problem: InfoNCEProblem) -> Int64[Tensor, " queries"]:
    """Count the documents that are no positives and, where asked, were brought by other queries."""
    used = problem.positive_is_used
    if problem.options.negatives == "all":
        return len(problem.document) - used.sum(1)
    assert problem.owners is not None
    queries = len(problem.query)
    place = problem.owners.clamp(max=queries)  # all of other ranks' in one more place
    brought = torch.zeros(queries + 1, dtype=torch.int64, device=place.device)
    brought.index_add_(0, place, torch.ones_like(place))
    others = problem.owners[problem.positives.clamp_min(0)] != problem.own_rows[:, None]
    return len(problem.document) - brought[problem.own_rows] - (used & others).sum(1)


def dense_ids(
    document_ids: Int64[Tensor, " documents"], relevant_ids: Int64[Tensor, "queries relevant"]
) -> tuple[Int[Tensor, " documents"], Int[Tensor, "queries relevant"]]:
    """Replace 63-bit ids by ranks that fit 32 bits and agree exactly where the ids agree.

    Ids of no document, and -1, become -1. A kernel then compares half as many bits for each score.
    """
    ordered = document_ids.sort().values
    relevant_ids = relevant_ids.contiguous()
    rank = torch.searchsorted(ordered, relevant_ids)
    found = ordered[rank.clamp_max(len(ordered) - 1)] == relevant_ids
    rank = rank.masked_fill(~found | (relevant_ids < 0), -1)
    return torch.searchsorted(ordered, document_ids).int(), rank.int()


def _scores(
    problem: InfoNCEProblem, anchor: Tensor, candidate: Tensor, *, hardness: float = 0.0
) -> Scores:
    scale = problem.temperature.reciprocal()[None]
    return Scores(aligned_rows(anchor), aligned_rows(candidate), scale, (scale + hardness) * LOG2_E)


def _ceiling(
    problem: InfoNCEProblem, best: Float[Tensor, " queries"]
) -> Float[Tensor, " queries"] | None:
    return problem.threshold(best) if problem.options.has_margin else None


def _relevant(problem: InfoNCEProblem) -> dict[str, Tensor | None]:
    """Return the keys of documents and those that each query may not have as a negative."""
    if problem.document_ids is None or not problem.relevant_ids.numel():
        return {"relevant": None, "keys": None}
    keys, relevant = dense_ids(problem.document_ids, problem.relevant_ids)
    return {"relevant": relevant.contiguous(), "keys": keys}


def _owners(problem: InfoNCEProblem) -> dict[str, Tensor]:
    """Return what leaves out the documents that a query brought."""
    assert problem.owners is not None
    return {"anchor_keys": problem.own_rows.int(), "answers": problem.owners.int()[:, None]}


def _counted(problem: InfoNCEProblem) -> bool:
    return problem.options.label_smoothing > 0.0


def _query_to_document(
    problem: InfoNCEProblem, best: Float[Tensor, " queries"], *, columns: bool
) -> Direction:
    options = problem.options
    candidates = replace(
        query_candidates(problem),
        **(_owners(problem) if options.negatives == "others" else {}),
        ceiling=_ceiling(problem, best),
        counted=_counted(problem),
    )
    scores = _scores(problem, problem.query, problem.document, hardness=options.hardness)
    return Direction("query", "document", scores, candidates, columns)


def _document_to_query(problem: InfoNCEProblem, best: Float[Tensor, " queries"]) -> Direction:
    """Exclude queries that the anchor answers: by column for own queries, by id for all."""
    first = problem.positives[:, 0]
    keys, answers = _answers(problem)
    candidates = Candidates(
        labels=_numbers(problem.rows[:, None]),
        anchor_keys=keys[first],
        answers=answers,
        ceiling=_ceiling(problem, best),
        counted=_counted(problem),
    )
    scores = _scores(problem, problem.document[first], problem.all_query)
    return Direction("document", "all_query", scores, candidates)


def _answers(problem: InfoNCEProblem) -> tuple[Int[Tensor, " documents"], Numbers]:
    """Return a key of each document and the keys of those that answer each query.

    Documents of one id share a key, and one without id has a key of its own, so that positives, which are
    known by their column, and relevant ids are one list.
    """
    number = len(problem.document)
    columns = torch.arange(number, device=problem.rows.device, dtype=torch.int32)
    keys, lists = number + columns, []
    if problem.document_ids is not None and problem.all_relevant_ids is not None:
        ranks, relevant = dense_ids(problem.document_ids, problem.all_relevant_ids)
        keys = torch.where(problem.document_ids < 0, keys, ranks)
        lists.append(relevant)
    own = keys[problem.positives.clamp_min(0)].masked_fill(~problem.positive_is_used, -1)
    rest = len(problem.all_query) - len(own)
    lists.append(F.pad(own, (0, 0, 0, rest), value=-1))
    return keys, torch.cat(lists, 1).contiguous()


def _query_to_query(problem: InfoNCEProblem, best: Float[Tensor, " queries"]) -> Direction:
    keys = relevant = None
    if problem.query_ids is not None and problem.all_query_ids is not None:
        keys, relevant = dense_ids(problem.all_query_ids, problem.query_ids[:, None])
    candidates = Candidates(
        labels=_numbers(problem.rows[:, None]),
        relevant=relevant,
        keys=keys,
        ceiling=_ceiling(problem, best),
        counted=_counted(problem),
    )
    return Direction(
        "query", "all_query", _scores(problem, problem.query, problem.all_query), candidates
    )


def _document_to_document(problem: InfoNCEProblem, best: Float[Tensor, " queries"]) -> Direction:
    candidates = replace(
        query_candidates(problem),
        **_owners(problem),
        ceiling=_ceiling(problem, best),
        counted=_counted(problem),
    )
    anchor = problem.document[problem.positives[:, 0]]
    return Direction("document", "document", _scores(problem, anchor, problem.document), candidates)


def _numbers(listed: Int64[Tensor, "rows listed"]) -> Numbers:
    return listed.int().contiguous()
