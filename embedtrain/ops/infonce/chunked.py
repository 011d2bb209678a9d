"""InfoNCE tile by tile: loss and gradients together, no score matrix and no graph per tile."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.ops.exponentials import exponentiate
from embedtrain.ops.infonce.autograd import Wanted, empty_gradients, with_gradients
from embedtrain.ops.infonce.blocks import (
    Block,
    Chunk,
    Gradients,
    add_positive_steps,
    cut,
    listed_similarity,
)
from embedtrain.ops.infonce.directions import build_directions
from embedtrain.ops.infonce.plan import is_symmetric, problem_rows
from embedtrain.ops.infonce.problem import InfoNCEOutput, InfoNCEProblem
from embedtrain.ops.infonce.rows import RowFigures, RowSums, summarise, weigh_rows
from embedtrain.ops.infonce.symmetric import infonce_symmetric
from embedtrain.ops.products import as_fine_as


class Reduced(NamedTuple):
    """What a row needs to know of one block; the tile itself holds the exponentials afterwards."""

    maximum: Float[Tensor, " rows"]
    total: Float[Tensor, " rows"]
    logits: Float[Tensor, " rows"]
    number: Float[Tensor, " rows"]
    suspected: Tensor | None
    entries: Int64[Tensor, " entries"]

    def drop(self, tile: Float[Tensor, "rows columns"], value: float) -> None:
        """Overwrite what is no negative."""
        tile.view(-1).index_fill_(0, self.entries, value)
        if self.suspected is not None:
            tile.masked_fill_(self.suspected, value)


class Buffers(NamedTuple):
    """Memory of one block's tiles: the scores, and their exponentials in the type they are multiplied in."""

    width: int
    scores: Float[Tensor, " entries"]
    exponentials: Float[Tensor, " entries"]

    @staticmethod
    def of(problem: InfoNCEProblem, block: Block, rows: int) -> "Buffers":
        """Take memory for tiles of so many rows; where the types agree one buffer is both."""
        scores = problem.query.new_empty(rows * block.width, dtype=problem.dtype)
        same = block.operands == problem.dtype
        exponentials = scores if same else torch.empty_like(scores, dtype=block.operands)
        return Buffers(block.width, scores, exponentials)

    def tiles(self, rows: int) -> tuple[Tensor, Tensor]:
        """Return both as matrices of so many rows."""
        scores = self.scores[: rows * self.width].view(rows, self.width)
        if self.exponentials is self.scores:
            return scores, scores
        return scores, self.exponentials[: rows * self.width].view(rows, self.width)


def infonce_chunked(problem: InfoNCEProblem) -> InfoNCEOutput:
    """Compute :func:`embedtrain.ops.infonce.loss.infonce` with memory for one tile of scores.

    Each tile is visited once: its rows are complete, so their loss and the gradients follow at once
    (3 GEMMs per direction). Both directions between queries and documents share their tiles
    (4 GEMMs, :mod:`embedtrain.ops.infonce.symmetric`).
    """
    return with_gradients(problem, _loss_and_gradients)


def _loss_and_gradients(
    problem: InfoNCEProblem, wanted: Wanted
) -> tuple[InfoNCEOutput, Gradients | None]:
    """Compute the output and the gradients of its loss; ``None`` where none is wanted."""
    gradients = empty_gradients(problem, wanted)
    with as_fine_as(problem.query.dtype, problem.query.device):
        if is_symmetric(problem):
            return infonce_symmetric(problem, problem_rows(problem), gradients), gradients
        return _in_tiles(problem, gradients), gradients


def _in_tiles(problem: InfoNCEProblem, gradients: Gradients | None) -> InfoNCEOutput:
    """Visit the tiles of all directions, one chunk of queries after the other."""
    rows = problem_rows(problem)
    directions = build_directions(problem, rows)
    buffers = [Buffers.of(problem, block, rows) for block in directions.blocks]
    # Results are written into memory taken beforehand: small tensors kept from every chunk would lie
    # between the large temporary ones and keep the allocator from reusing their places (measured: 150 MiB).
    loss = torch.zeros_like(problem.temperature[0])
    figures = RowFigures(
        best=torch.empty_like(problem.temperature),
        hardest=torch.empty_like(problem.temperature),
        eligible=directions.eligible,
        known=directions.known,
        suspected=torch.zeros_like(directions.known),
    )
    for chunk in cut(problem, rows):
        tiles = [buffer.tiles(len(chunk.query)) for buffer in buffers]
        loss += _visit(problem, directions.blocks, tiles, chunk, figures, gradients)
    return summarise(loss, figures)


def _visit(
    problem: InfoNCEProblem,
    blocks: list[Block],
    tiles: list[tuple[Tensor, Tensor]],
    chunk: Chunk,
    figures: RowFigures,
    gradients: Gradients | None,
) -> Float[Tensor, ""]:
    """Add one chunk's gradients, note its figures and return its loss."""
    rows, options = chunk.rows, problem.options
    listed, used = problem.positives[rows], problem.positive_is_used[rows]
    similarity = listed_similarity(chunk.query, problem.document, listed)
    best = similarity.masked_fill(~used, -torch.inf).amax(1)
    limit = problem.threshold(best)
    parts = [
        _reduce(block, both, chunk, limit if options.has_margin else None, options.label_smoothing)
        for block, both in zip(blocks, tiles, strict=True)
    ]
    sums = RowSums(
        negatives=torch.stack([part.maximum + part.total.log() for part in parts], 1),
        positives=similarity,
        temperature=problem.temperature[rows],
        logits=torch.stack([part.logits for part in parts], 1),
    )
    counts = torch.stack([part.number for part in parts], 1)
    wanted = gradients is not None
    loss, slopes = weigh_rows(sums, counts, used, problem.share, options, wanted=wanted)
    if gradients is not None and slopes is not None:
        exponentials = [exponential for _, exponential in tiles]
        visited = list(zip(blocks, exponentials, parts, strict=True))
        _add_gradients(problem, visited, chunk, slopes, gradients)
    figures.best[rows] = best
    torch.div(parts[0].maximum, chunk.inverse, out=figures.hardest[rows])
    if parts[0].suspected is not None:
        figures.suspected[rows] = parts[0].suspected.sum(1)
    return loss


def _reduce(
    block: Block,
    tiles: tuple[Float[Tensor, "rows columns"], Float[Tensor, "rows columns"]],
    chunk: Chunk,
    limit: Float[Tensor, " rows"] | None,
    smoothing: float,
) -> Reduced:
    """Fill a tile with the exponentials of a block's negatives and return what the rows need."""
    tile, exponentials = tiles
    scale, pending = block.fill(tile, chunk)
    nothing = torch.zeros_like(scale)
    result = Reduced(nothing, nothing, nothing, nothing, None, block.excluded(chunk))
    result.drop(tile, -torch.inf)
    if limit is not None:
        result = result._replace(
            suspected=tile > (limit if pending is not None else limit * scale)[:, None]
        )
        result.drop(tile, -torch.inf)
    if smoothing > 0.0:
        number = tile.isfinite().sum(1).to(tile.dtype)
        result.drop(tile, 0.0)
        logits = tile.sum(1) if pending is None else tile.sum(1) * pending
        result = result._replace(logits=logits, number=number)
        result.drop(tile, -torch.inf)
    maximum, total = exponentiate(tile, pending, exponentials)
    return result._replace(maximum=maximum, total=total)


def _add_gradients(
    problem: InfoNCEProblem,
    blocks: list[tuple[Block, Tensor, Reduced]],
    chunk: Chunk,
    slopes: RowSums,
    gradients: Gradients,
) -> None:
    """Carry the derivatives by the row sums on to embeddings and temperature."""
    for k, (block, tile, part) in enumerate(blocks):
        factor = slopes.negatives[:, k] / part.total.clamp_min(1.0)  # 0 only where nothing is left
        if problem.options.label_smoothing > 0.0:
            tile.mul_(factor[:, None]).add_(slopes.logits[:, k, None])
            part.drop(tile, 0.0)
            factor = torch.ones_like(factor)
        block.add_steps(tile, chunk, factor * chunk.inverse, gradients)
    add_positive_steps(problem, chunk, slopes.positives, slopes.temperature, gradients)
