"""From a problem to its blocks: the candidates of each direction and which of them ids exclude."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.ops.infonce.blocks import Block, ListedBlock, TileBlock
from embedtrain.ops.infonce.pairs import Matches, match
from embedtrain.ops.infonce.problem import InfoNCEProblem


class Directions(NamedTuple):
    """The blocks of a problem, query-to-document first, and that direction's counts per query."""

    blocks: list[Block]
    eligible: Int64[Tensor, " queries"]
    known: Int64[Tensor, " queries"]


def build_directions(problem: InfoNCEProblem, chunk_rows: int) -> Directions:
    """Prepare every block once; ``chunk_rows`` is the number of queries that visit them together."""
    document, wanted = problem.document.to(problem.dtype), problem.options.directions
    first: Block
    if problem.options.negatives == "own":
        first, eligible, known = _own_negatives(problem, chunk_rows)
    else:
        first, eligible, known = all_documents(problem, document, chunk_rows)
    blocks: list[Block] = [first]
    if "document_to_query" in wanted or "query_to_query" in wanted:
        all_query = problem.all_query.to(problem.dtype)
        if "document_to_query" in wanted:
            blocks.append(_document_to_query(problem, document, all_query, chunk_rows))
        if "query_to_query" in wanted:
            blocks.append(_query_to_query(problem, document, all_query, chunk_rows))
    if "document_to_document" in wanted:
        assert problem.owners is not None
        own = match(problem.rows[:, None], problem.owners, chunk_rows)
        matches = (*relevant_matches(problem, chunk_rows), own)
        blocks.append(
            TileBlock("document", "document", document, document, filled(problem), matches)
        )
    return Directions(blocks, eligible, known)


def filled(problem: InfoNCEProblem) -> Int64[Tensor, "queries positives"]:
    """Return the positives with unused entries replaced by the first."""
    return problem.positives.where(problem.positive_is_used, problem.positives[:, :1])


def relevant_matches(problem: InfoNCEProblem, chunk_rows: int) -> tuple[Matches, ...]:
    """Find the documents whose id answers the query; nothing where documents have no ids."""
    if problem.document_ids is None:
        return ()
    return (match(problem.relevant_ids, problem.document_ids, chunk_rows),)


def all_documents(
    problem: InfoNCEProblem, document: Float[Tensor, "documents dim"], chunk_rows: int
) -> tuple[TileBlock, Int64[Tensor, " queries"], Int64[Tensor, " queries"]]:
    """Return query-to-document against all documents, and counts as in :class:`Directions`."""
    options, used = problem.options, problem.positive_is_used
    matches = relevant_matches(problem, chunk_rows)
    if options.negatives == "others":
        assert problem.owners is not None
        matches = (*matches, match(problem.rows[:, None], problem.owners, chunk_rows))
    always = filled(problem)
    block = TileBlock("query", "document", document, document, always, matches, options.hardness)
    eligible = len(document) - used.sum(1)
    known = torch.zeros_like(eligible)
    if problem.document_ids is not None:
        has_id = problem.document_ids[always] >= 0
        known = matches[0].counts.sum(1) - (has_id & used).sum(1)
    if options.negatives == "others":
        _, own_eligible, own_known = _own_negatives(problem, chunk_rows)
        eligible, known = eligible - own_eligible, known - own_known
    return block, eligible, known


def _own_negatives(
    problem: InfoNCEProblem, chunk_rows: int
) -> tuple[ListedBlock, Int64[Tensor, " queries"], Int64[Tensor, " queries"]]:
    assert problem.owners is not None
    options = problem.options
    listed = match(problem.rows[:, None], problem.owners, chunk_rows).listed()
    eligible, known = listed >= 0, torch.zeros_like(listed, dtype=torch.bool)
    for positive in problem.positives.T:
        eligible &= listed != positive[:, None]
    if problem.document_ids is not None:
        ids = problem.document_ids[listed.clamp_min(0)]
        for relevant in problem.relevant_ids.T:
            known |= eligible & (ids == relevant[:, None]) & (ids >= 0)
    block = ListedBlock(problem.document, listed, eligible & ~known, options.hardness)
    return block, eligible.sum(1), known.sum(1)


def _document_to_query(
    problem: InfoNCEProblem,
    document: Float[Tensor, "documents dim"],
    all_query: Float[Tensor, "all_queries dim"],
    chunk_rows: int,
) -> TileBlock:
    """Exclude queries that the anchor answers: by column for own queries, by id for all."""
    positives = problem.positives
    by_column = problem.rows[:, None].expand_as(positives)
    anchors = positives[:, :1]
    matches = [match(anchors, positives.flatten(), chunk_rows, by_column.flatten())]
    if problem.document_ids is not None and problem.all_relevant_ids is not None:
        relevant = problem.all_relevant_ids
        rows = torch.arange(len(relevant), device=relevant.device)[:, None].expand_as(relevant)
        wanted = problem.document_ids[anchors]
        matches.append(match(wanted, relevant.flatten(), chunk_rows, rows.flatten()))
    always = problem.rows[:, None]
    return TileBlock("document", "all_query", document, all_query, always, tuple(matches))


def _query_to_query(
    problem: InfoNCEProblem,
    document: Float[Tensor, "documents dim"],
    all_query: Float[Tensor, "all_queries dim"],
    chunk_rows: int,
) -> TileBlock:
    matches: tuple[Matches, ...] = ()
    if problem.query_ids is not None and problem.all_query_ids is not None:
        matches = (match(problem.query_ids[:, None], problem.all_query_ids, chunk_rows),)
    always = problem.rows[:, None]
    return TileBlock("query", "all_query", document, all_query, always, matches)
