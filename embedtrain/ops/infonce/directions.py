"""From a problem to its blocks: the candidates of each direction and which of them ids exclude."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.ops.infonce.blocks import Block, ListedBlock, TileBlock
from embedtrain.ops.infonce.pairs import Matches, match
from embedtrain.ops.infonce.problem import InfoNCEProblem
from embedtrain.packed import upload


class Directions(NamedTuple):
    """The blocks of a problem, query-to-document first, and that direction's counts per query."""

    blocks: list[Block]
    eligible: Int64[Tensor, " queries"]
    known: Int64[Tensor, " queries"]


def build_directions(problem: InfoNCEProblem, chunk_rows: int) -> Directions:
    """Prepare every block once; ``chunk_rows`` is the number of queries that visit them together."""
    document, wanted = problem.document.to(problem.operands), problem.options.directions
    first: Block
    if problem.options.negatives == "own":
        first, eligible, known = _own_negatives(problem, chunk_rows)
    else:
        first, eligible, known = all_documents(problem, document, chunk_rows)
    blocks: list[Block] = [first]
    if "document_to_query" in wanted or "query_to_query" in wanted:
        all_query = problem.all_query.to(problem.operands)
        if "document_to_query" in wanted:
            blocks.append(_document_to_query(problem, document, all_query, chunk_rows))
        if "query_to_query" in wanted:
            blocks.append(_query_to_query(problem, document, all_query, chunk_rows))
    if "document_to_document" in wanted:
        matches = (*relevant_matches(problem, chunk_rows), own_documents(problem, chunk_rows))
        always = problem.host.filled
        blocks.append(TileBlock("document", "document", document, document, always, matches))
    return Directions(blocks, eligible, known)


def relevant_matches(problem: InfoNCEProblem, chunk_rows: int) -> tuple[Matches, ...]:
    """Find the documents whose id answers the query; nothing where documents have no ids."""
    ids = problem.host
    if ids.document_ids is None:
        return ()
    return (match(ids.relevant_ids, ids.document_ids, chunk_rows),)


def own_documents(problem: InfoNCEProblem, chunk_rows: int) -> Matches:
    """Find the documents that each query brought."""
    ids = problem.host
    assert ids.owners is not None
    return match(ids.own_rows[:, None], ids.owners, chunk_rows)


def all_documents(
    problem: InfoNCEProblem, document: Float[Tensor, "documents dim"], chunk_rows: int
) -> tuple[TileBlock, Int64[Tensor, " queries"], Int64[Tensor, " queries"]]:
    """Return query-to-document against all documents, and counts as in :class:`Directions`."""
    options, ids = problem.options, problem.host
    matches = relevant_matches(problem, chunk_rows)
    used, always = ids.positives >= 0, ids.filled
    eligible = len(document) - used.sum(1)
    known = torch.zeros_like(eligible)
    if ids.document_ids is not None:
        has_id = ids.document_ids[always] >= 0
        known = matches[0].counts.sum(1) - (has_id & used).sum(1)
    if options.negatives == "others":
        matches = (*matches, own_documents(problem, chunk_rows))
    block = TileBlock("query", "document", document, document, always, matches, options.hardness)
    counts = upload(torch.stack([eligible, known]), document.device)
    if options.negatives == "others":
        _, *own_counts = _own_negatives(problem, chunk_rows)
        counts = counts - torch.stack(own_counts)
    return block, counts[0], counts[1]


def _own_negatives(
    problem: InfoNCEProblem, chunk_rows: int
) -> tuple[ListedBlock, Int64[Tensor, " queries"], Int64[Tensor, " queries"]]:
    ids, device = problem.host, problem.document.device
    listed = own_documents(problem, chunk_rows).listed()
    eligible, known = listed >= 0, torch.zeros_like(listed, dtype=torch.bool)
    for positive in ids.positives.T:
        eligible &= listed != positive[:, None]
    if ids.document_ids is not None:
        found = ids.document_ids[listed.clamp_min(0)]
        for relevant in ids.relevant_ids.T:
            known |= eligible & (found == relevant[:, None]) & (found >= 0)
    negative, hardness = eligible & ~known, problem.options.hardness
    block = ListedBlock(problem.document, upload(listed, device), negative, hardness)
    counts = upload(torch.stack([eligible.sum(1), known.sum(1)]), device)
    return block, counts[0], counts[1]


def _document_to_query(
    problem: InfoNCEProblem,
    document: Float[Tensor, "documents dim"],
    all_query: Float[Tensor, "all_queries dim"],
    chunk_rows: int,
) -> TileBlock:
    """Exclude queries that the anchor answers: by column for own queries, by id for all."""
    ids = problem.host
    by_column = ids.rows[:, None].expand_as(ids.positives)
    anchors = ids.positives[:, :1]
    matches = [match(anchors, ids.positives.flatten(), chunk_rows, by_column.flatten())]
    if ids.document_ids is not None and ids.all_relevant_ids is not None:
        relevant = ids.all_relevant_ids
        rows = torch.arange(len(relevant))[:, None].expand_as(relevant)
        wanted = ids.document_ids[anchors]
        matches.append(match(wanted, relevant.flatten(), chunk_rows, rows.flatten()))
    always = ids.rows[:, None]
    return TileBlock("document", "all_query", document, all_query, always, tuple(matches))


def _query_to_query(
    problem: InfoNCEProblem,
    document: Float[Tensor, "documents dim"],
    all_query: Float[Tensor, "all_queries dim"],
    chunk_rows: int,
) -> TileBlock:
    ids = problem.host
    matches: tuple[Matches, ...] = ()
    if ids.query_ids is not None and ids.all_query_ids is not None:
        matches = (match(ids.query_ids[:, None], ids.all_query_ids, chunk_rows),)
    always = ids.rows[:, None]
    return TileBlock("query", "all_query", document, all_query, always, matches)
