"""InfoNCE over documents that travel around a ring of ranks: no rank ever holds them all.

Each rank keeps its queries. Its documents visit all ranks twice: first the queries sum the exponentials of
their negatives, then, with the complete sums, they compute gradients; a document's gradient travels with it
and is complete when it is home (4 GEMMs). Memory is that of two shards and one tile.

Source: the ring of Cheng et al. (2024), Inf-CL, https://arxiv.org/abs/2410.17243.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.ops.exponentials import exponentiate
from embedtrain.ops.infonce.autograd import Wanted, empty_gradients, with_gradients
from embedtrain.ops.infonce.blocks import (
    Chunk,
    Gradients,
    TileBlock,
    add_positive_steps,
    cut,
    listed_similarity,
)
from embedtrain.ops.infonce.directions import filled
from embedtrain.ops.infonce.pairs import match
from embedtrain.ops.infonce.plan import tile_rows
from embedtrain.ops.infonce.problem import InfoNCEOutput, InfoNCEProblem
from embedtrain.ops.infonce.rows import RowFigures, RowSums, summarise, weigh_rows


@runtime_checkable
class Ring(Protocol):
    """Passes shards on; every rank calls :meth:`shift` as often as there are ranks, per visit of all."""

    @property
    def sizes(self) -> list[int]:
        """Number of documents of each visiting shard, own first."""

    @property
    def mean_queries(self) -> float:
        """Number of queries per rank, on average over ranks."""

    def shift(self, visit: int, tensors: list[Tensor]) -> list[Tensor]:
        """Send the tensors of shard ``visit`` to the next rank and return those of the following one."""


@dataclass(frozen=True)
class RingState:
    """What this rank knows of its queries while documents pass by."""

    problem: InfoNCEProblem
    ring: Ring
    tiles: Float[Tensor, " entries"]
    chunk_rows: int
    similarity: Float[Tensor, "queries positives"]
    limit: Float[Tensor, " queries"]
    """Similarity above which a candidate is suspected."""

    def block(self, visit: int, shard: list[Tensor]) -> TileBlock:
        """Return the visiting documents as negatives; own positives are among one's own documents."""
        problem = self.problem
        document = shard[0].to(problem.dtype)
        positives = filled(problem) if visit == 0 else problem.positives[:, :0]
        matches = (match(problem.relevant_ids, shard[1], self.chunk_rows),)
        hardness = problem.options.hardness
        return TileBlock("query", "document", document, document, positives, matches, hardness)

    def logits(self, block: TileBlock, chunk: Chunk) -> tuple[Tensor, Int64[Tensor, " rows"]]:
        """Return a chunk's logits, -inf for what is no negative, and the number of suspects per row."""
        tile = self.tiles[: len(chunk.query) * block.width].view(-1, block.width)
        scale = block.fill(tile, chunk)
        tile.view(-1).index_fill_(0, block.excluded(chunk), -torch.inf)
        if not self.problem.options.has_margin:
            return tile, torch.zeros_like(chunk.first)
        suspected = tile > (self.limit[chunk.rows] * scale)[:, None]
        return tile.masked_fill_(suspected, -torch.inf), suspected.sum(1)


def infonce_ring(problem: InfoNCEProblem, ring: Ring, *, averaged: bool) -> InfoNCEOutput:
    """Compute :func:`embedtrain.ops.infonce.loss.infonce` with own documents in ``problem``.

    An ``averaged`` loss is divided by the mean number of queries per rank, not by that of this rank: the
    documents' gradients of all ranks are summed before anyone could scale them apart, so the average of
    the losses over ranks must be the global mean as it stands.
    """
    options = problem.options
    obstacles = {
        "other directions": options.directions != ("query_to_document",),
        "own negatives kept apart": options.negatives != "all",
        "hardness for some negatives": options.hardness != 0.0 and options.hardness_scope != "all",
        "label smoothing": options.label_smoothing != 0.0,
    }
    for name, present in obstacles.items():
        if present:
            raise UserError(
                "infonce(ring=...)", "cannot compute this", got=name, cure="Gather the documents"
            )
    if averaged:
        share = len(problem.query) / ring.mean_queries
        problem = replace(problem, row_weights=problem.row_weights * share)
    return with_gradients(problem, partial(_loss_and_gradients, ring=ring))


def _loss_and_gradients(
    problem: InfoNCEProblem, wanted: Wanted, ring: Ring
) -> tuple[InfoNCEOutput, Gradients | None]:
    state = _start(problem, ring)
    maximum, total, known, suspected = _first_visits(state)
    used, options = problem.positive_is_used, problem.options
    nothing = torch.zeros_like(total)[:, None]
    log_sum = maximum + total.log()
    sums = RowSums(log_sum[:, None], state.similarity, problem.temperature, nothing)
    gradients, weights = empty_gradients(problem, wanted), problem.row_weights
    loss, slopes = weigh_rows(sums, nothing, used, weights, options, wanted=gradients is not None)
    if gradients is not None and slopes is not None:
        gradients = _second_visits(state, log_sum, slopes, gradients)
    best = state.similarity.masked_fill(~used, -torch.inf).amax(1)
    eligible = sum(ring.sizes) - used.sum(1)
    hardest = maximum.where(total > 0, -torch.inf) * problem.temperature
    return summarise(loss, RowFigures(best, hardest, eligible, known, suspected)), gradients


def _start(problem: InfoNCEProblem, ring: Ring) -> RingState:
    most, dim = max(ring.sizes), problem.query.shape[1]
    rows = tile_rows(len(problem.query), most, dim, problem.dtype.itemsize)
    similarity = problem.temperature.new_empty(problem.positives.shape)
    for chunk in cut(problem, rows):
        listed = problem.positives[chunk.rows]
        similarity[chunk.rows] = listed_similarity(chunk.query, problem.document, listed)
    best = similarity.masked_fill(~problem.positive_is_used, -torch.inf).amax(1)
    tiles = similarity.new_empty(rows * most)
    return RingState(problem, ring, tiles, rows, similarity, problem.threshold(best))


def _own_shard(problem: InfoNCEProblem) -> list[Tensor]:
    ids = problem.document_ids
    if ids is None:
        ids = torch.full_like(problem.positives[:1, 0], -1).expand(len(problem.document))
    return [problem.document, ids]


def _first_visits(state: RingState) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return per query the largest logit, the sum of exponentials less it, and numbers left out."""
    problem = state.problem
    maximum = torch.full_like(problem.temperature, torch.finfo(problem.dtype).min)
    total = torch.zeros_like(maximum)
    known, suspected = torch.zeros_like(problem.query_rows), torch.zeros_like(problem.query_rows)
    shard = _own_shard(problem)
    has_id = shard[1][filled(problem)] >= 0
    known -= (has_id & problem.positive_is_used).sum(1)
    for visit in range(len(state.ring.sizes)):
        block = state.block(visit, shard)
        known += block.matches[0].counts.sum(1)
        for chunk in cut(problem, state.chunk_rows):
            tile, number = state.logits(block, chunk)
            peak, part = exponentiate(tile)
            rows = chunk.rows
            largest = torch.maximum(maximum[rows], peak)
            total[rows] *= (maximum[rows] - largest).exp()
            total[rows] += part * (peak - largest).exp()
            maximum[rows], suspected[rows] = largest, suspected[rows] + number
        shard = state.ring.shift(visit, shard)
    return maximum, total, known, suspected


def _second_visits(
    state: RingState, log_sum: Float[Tensor, " queries"], slopes: RowSums, gradients: Gradients
) -> Gradients:
    """Add the gradients of own queries; each shard's own gradient travels on with it."""
    problem = state.problem
    finite = log_sum.clamp_min(torch.finfo(problem.dtype).min)
    shard = _own_shard(problem)
    travelling = [] if gradients.document is None else [gradients.document]
    for visit in range(len(state.ring.sizes)):
        block = state.block(visit, shard)
        visiting = replace(gradients, document=travelling[0] if travelling else None)
        for chunk in cut(problem, state.chunk_rows):
            rows = chunk.rows
            tile, _ = state.logits(block, chunk)
            tile.sub_(finite[rows, None]).exp_()
            block.add_steps(tile, chunk, slopes.negatives[rows, 0] * chunk.inverse, visiting)
            if visit == 0:
                own = slopes.positives[rows], slopes.temperature[rows]
                add_positive_steps(problem, chunk, *own, visiting)
        *shard, last = state.ring.shift(visit, [*shard, *travelling])
        if travelling:
            travelling = [last]
        else:
            shard.append(last)
    return replace(gradients, document=travelling[0] if travelling else None)
