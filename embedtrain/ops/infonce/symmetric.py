"""Query-to-document and document-to-query from the same tiles: 4 GEMMs for both directions.

A column of the score matrix is complete only after all rows were seen, so each tile is computed twice:
first for the sums of rows and columns, then for the gradients.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from embedtrain.ops.infonce.blocks import (
    Chunk,
    Gradients,
    TileBlock,
    add_positive_steps,
    cut,
    listed_similarity,
)
from embedtrain.ops.infonce.directions import all_documents
from embedtrain.ops.infonce.problem import InfoNCEOutput, InfoNCEProblem
from embedtrain.ops.infonce.rows import RowFigures, RowSums, summarise, weigh_rows

CACHED_ROWS = 16
"""Rows of a tile whose exponentials are taken aside on a CPU; few enough to stay in the cache."""
PARTS = 8
"""Parts of a tile that are taken aside one after the other elsewhere: few launches, and little memory."""


@dataclass(frozen=True)
class Tiles:
    """The logits of all negatives, one tile at a time in the same memory."""

    block: TileBlock
    buffer: Float[Tensor, " entries"]

    def logits(self, chunk: Chunk) -> Float[Tensor, "rows documents"]:
        """Compute a chunk's tile, -inf where a document is no negative."""
        width = self.block.width
        tile = self.buffer[: len(chunk.query) * width].view(-1, width)
        self.block.fill(tile, chunk)
        tile.view(-1).index_fill_(0, self.block.excluded(chunk), -torch.inf)
        return tile


@dataclass(frozen=True)
class LogSums:
    """Logs of the sums of exponentials over rows and columns, and the loss's derivatives by them."""

    by_row: Float[Tensor, " queries"]
    by_column: Float[Tensor, " documents"]
    row_slope: Float[Tensor, " queries"]
    column_slope: Float[Tensor, " documents"]


def infonce_symmetric(
    problem: InfoNCEProblem, tile_rows: int, gradients: Gradients | None
) -> InfoNCEOutput:
    """Compute both directions; the caller made sure that nothing asks for a tile per direction."""
    document = problem.document.to(problem.dtype)
    block, eligible, known = all_documents(problem, document, tile_rows)
    tiles = Tiles(block, document.new_empty(tile_rows * block.width))
    similarity, hardest, by_row, by_column = _first_visit(problem, tiles, tile_rows)

    options, used, first = problem.options, problem.positive_is_used, problem.positives[:, 0]
    negatives = torch.stack([by_row, by_column[first]], 1)
    nothing = torch.zeros_like(negatives)
    sums = RowSums(negatives, similarity, problem.temperature, nothing)
    share, wanted = problem.share, gradients is not None
    loss, slopes = weigh_rows(sums, nothing, used, share, options, wanted=wanted)
    if gradients is not None and slopes is not None:
        row_slope, anchor_slope = slopes.negatives.unbind(1)
        column_slope = torch.zeros_like(by_column).index_add_(0, first, anchor_slope)
        log_sums = LogSums(by_row, by_column, row_slope, column_slope)
        for chunk in cut(problem, tile_rows):
            tile, rows = tiles.logits(chunk), chunk.rows
            _differentiate(tile, log_sums, chunk)
            block.add_steps(tile, chunk, chunk.inverse, gradients)
            by_positive, by_temperature = slopes.positives[rows], slopes.temperature[rows]
            add_positive_steps(problem, chunk, by_positive, by_temperature, gradients)
    best = similarity.masked_fill(~used, -torch.inf).amax(1)
    hardest = hardest * problem.temperature
    return summarise(loss, RowFigures(best, hardest, eligible, known, torch.zeros_like(known)))


def _first_visit(
    problem: InfoNCEProblem, tiles: Tiles, tile_rows: int
) -> tuple[
    Float[Tensor, "queries positives"],
    Float[Tensor, " queries"],
    Float[Tensor, " queries"],
    Float[Tensor, " documents"],
]:
    """Return the positives' similarities, the hardest logits, and log-sums of rows and columns."""
    maximum = tiles.buffer.new_full((tiles.block.width,), torch.finfo(problem.dtype).min)
    total = torch.zeros_like(maximum)
    similarity = maximum.new_empty(problem.positives.shape)
    hardest, by_row = torch.empty_like(problem.temperature), torch.empty_like(problem.temperature)
    for chunk in cut(problem, tile_rows):
        tile, rows = tiles.logits(chunk), chunk.rows
        listed = problem.positives[rows]
        similarity[rows] = listed_similarity(chunk.query, problem.document, listed)
        hardest[rows] = tile.amax(1)
        by_row[rows] = torch.cat([part.logsumexp(1) for part in _parts(tile)])
        previous = maximum
        maximum = torch.maximum(previous, tile.amax(0))
        total.mul_((previous - maximum).exp_()).add_(tile.sub_(maximum).exp_().sum(0))
    return similarity, hardest, by_row, maximum + total.log()


def _differentiate(tile: Float[Tensor, "rows documents"], log_sums: LogSums, chunk: Chunk) -> None:
    """Replace logits by the loss's derivatives by them, over both directions.

    A row or column without negatives has the log-sum -inf; the clamp keeps ``-inf - -inf`` out.
    """
    smallest = torch.finfo(tile.dtype).min
    by_row = _parts(log_sums.by_row[chunk.rows].clamp_min(smallest)[:, None])
    row_slope = _parts(log_sums.row_slope[chunk.rows][:, None])
    by_column = log_sums.by_column.clamp_min(smallest)
    for part, log_sum, slope in zip(_parts(tile), by_row, row_slope, strict=True):
        along_row = (part - log_sum).exp_().mul_(slope)
        part.sub_(by_column).exp_().mul_(log_sums.column_slope).add_(along_row)


def _parts(tile: Float[Tensor, "rows columns"]) -> tuple[Float[Tensor, "part columns"], ...]:
    """Cut a tile into runs of rows that are worked on one after the other."""
    on_cpu = tile.device.type == "cpu"
    return torch.split(tile, CACHED_ROWS if on_cpu else max(CACHED_ROWS, -(-len(tile) // PARTS)))
