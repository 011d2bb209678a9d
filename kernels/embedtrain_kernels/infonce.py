"""Launches of the InfoNCE kernels: buffers, panels, the merge of partial results, and the products of slopes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import triton
from torch import Tensor

from embedtrain_kernels.configurations import Tile
from embedtrain_kernels.infonce_arguments import Candidates, NegativeSums, Scores, Slopes
from embedtrain_kernels.infonce_forward import infonce_forward
from embedtrain_kernels.infonce_slopes import infonce_slopes

PANEL_BLOCKS = 64
"""Row blocks of one forward launch: partial sums then take about 512 bytes a candidate and 4 KiB an anchor
of 65,536 candidates."""

SLOPE_BYTES = 512 << 20
"""Bound of the buffer of slopes. 4,096 rows of 65,536 bfloat16 slopes fill it; the gradient of the candidates
is read and written once for each filling."""

LOG2_E = 1.4426950408889634

SLOPE_UNIT = 4096.0
"""Slopes are held in this unit so that a softmax of 1e-7 is still a number in float16."""

AddProduct = Callable[[Tensor, Tensor, Tensor], None]

Pair = tuple[Tensor, Tensor]
"""Maximum, and sum of exponentials relative to it."""


@dataclass(frozen=True)
class Gradients:
    """Float32 gradients, ``None`` where none was wanted."""

    anchor: Tensor | None
    candidate: Tensor | None
    row_share: Tensor | None = None
    """``[sizes, anchors]`` sum of slope times product (with its factors); only for several sizes."""
    column_share: Tensor | None = None
    """``[sizes, candidates]``"""


def negative_sums(
    scores: Scores, candidates: Candidates, tile: Tile, *, columns: bool = False
) -> NegativeSums:
    """Sum the exponentials of all negatives of every anchor and, with ``columns``, of every candidate."""
    panel, bounds, parts = PANEL_BLOCKS * tile.rows, scores.bounds(), []
    running: Pair | None = None
    for begin in range(0, len(scores.anchor), panel):
        end = min(begin + panel, len(scores.anchor))
        found, column = _forward_panel(
            scores.rows(begin, end), candidates.rows(begin, end), bounds, tile, columns=columns
        )
        parts.append(found)
        if column is not None:
            running = column if running is None else merge(*_joined(running, column))
    fields = zip(*parts, strict=True)
    joined = [None if some[0] is None else torch.cat(some, 1) for some in fields]
    return NegativeSums(*joined, None if running is None else logarithm(*running))


def _forward_panel(
    scores: Scores, candidates: Candidates, bounds: Tensor, tile: Tile, *, columns: bool
) -> tuple[tuple[Tensor | None, ...], Pair | None]:
    """Launch the forward kernel; return the figures of the rows, and column sums of this panel."""
    sizes, num_rows, num_columns = len(scores.scale), len(scores.anchor), len(scores.candidate)
    row_blocks = triton.cdiv(num_rows, tile.rows)
    column_blocks = triton.cdiv(num_columns, tile.columns)
    empty = partial(torch.empty, dtype=torch.float32, device=scores.anchor.device)
    shape, figures = (sizes, column_blocks, num_rows), None
    row = empty(shape), empty(shape)
    column = (empty(row_blocks, num_columns), empty(row_blocks, num_columns)) if columns else None
    if candidates.guarded:
        figures = (empty(shape, dtype=torch.int32), empty(shape, dtype=torch.int32), empty(shape))
    suspected, number, logits = figures or (candidates.labels, candidates.labels, row[0])
    infonce_forward[(row_blocks * column_blocks,)](
        **scores.arguments(bounds),
        **candidates.arguments(),
        row_maximum=row[0],
        row_total=row[1],
        row_suspected=suspected,
        row_number=number,
        row_logits=logits,
        column_maximum=row[0] if column is None else column[0],
        column_total=row[1] if column is None else column[1],
        has_columns=columns,
        **tile.constants(),
        block_depth=tile.depth,
        **tile.launch(),
    )
    maximum, total = merge(row[0].transpose(0, 1), row[1].transpose(0, 1))
    counts = (None, None, None) if figures is None else (part.sum(1) for part in figures)
    return (maximum, logarithm(maximum, total), *counts), None if column is None else merge(*column)


def merge(maximum: Tensor, total: Tensor) -> Pair:
    """Join partial (maximum, sum of exponentials) along the first axis, in a fixed order."""
    highest = maximum.amax(0)
    shift = highest.masked_fill(highest == -torch.inf, 0.0)
    return highest, (total * torch.exp2(maximum - shift)).sum(0)


def logarithm(maximum: Tensor, total: Tensor) -> Tensor:
    """Return the base-2 log-sum-exp, ``-inf`` for an empty sum."""
    return torch.where(total > 0, maximum + torch.log2(total), maximum)


def _joined(first: Pair, second: Pair) -> Pair:
    """Put two merged pairs beside each other."""
    return torch.stack([first[0], second[0]]), torch.stack([first[1], second[1]])


def gradients(
    scores: Scores,
    slopes: Slopes,
    candidates: Candidates,
    tile: Tile,
    add_product: AddProduct,
    *,
    anchor: bool = True,
    candidate: bool = True,
) -> Gradients:
    """Return the gradients of anchors and candidates, one panel of slopes after the other.

    Coordinates of several sizes get the sum over the sizes that hold them, along the product alone: what
    follows from the factors depends on ``row_share`` and ``column_share``. ``add_product(out, left, right)`` adds
    the float32 product of two matrices of the embeddings' type: a GEMM of the library.
    """
    largest, peak = slopes.largest(), scores.scale.amax()
    factor = scores.scale / peak
    unit = largest * peak / SLOPE_UNIT
    if scores.candidate_scale is not None:
        beside = scores.candidate_scale.amax()
        factor, unit = factor / beside, unit * beside
    slopes, bounds = slopes.scaled(SLOPE_UNIT / largest), scores.bounds()
    target = _Target(scores, tile, add_product, anchor=anchor, candidate=candidate)
    for rows in target.panels():
        target.add(rows, slopes.rows(*rows), candidates.rows(*rows), factor, bounds)
    return target.result(unit)


class _Target:
    """Gradients that panels of slopes are added to, and the buffer of one panel."""

    def __init__(
        self, scores: Scores, tile: Tile, add_product: AddProduct, *, anchor: bool, candidate: bool
    ) -> None:
        self.scores, self.tile, self.add_product = scores, tile, add_product
        sizes, rows, columns = len(scores.scale), len(scores.anchor), len(scores.candidate)
        zeros = partial(torch.zeros, dtype=torch.float32, device=scores.anchor.device)
        self.anchor = zeros(scores.anchor.shape) if anchor else None
        self.candidate = zeros(scores.candidate.shape) if candidate else None
        self.row_share = zeros(sizes, rows) if scores.nested else None
        self.column_share = zeros(sizes, columns) if scores.nested else None
        stride = triton.cdiv(columns, 16) * 16
        fitting = SLOPE_BYTES // (sizes * stride * scores.anchor.element_size())
        blocks = triton.cdiv(rows, max(fitting // tile.rows, 1) * tile.rows)
        self.height = triton.cdiv(rows, blocks * tile.rows) * tile.rows
        shape = (sizes, min(self.height, rows), stride)
        self.buffer = torch.empty(shape, dtype=scores.anchor.dtype, device=scores.anchor.device)

    def panels(self) -> list[tuple[int, int]]:
        """Return the rows of each panel."""
        rows = len(self.scores.anchor)
        return [(at, min(at + self.height, rows)) for at in range(0, rows, self.height)]

    def add(
        self,
        rows: tuple[int, int],
        slopes: Slopes,
        candidates: Candidates,
        factor: Tensor,
        bounds: Tensor,
    ) -> None:
        """Compute the slopes of a panel and add what they give."""
        begin, end = rows
        scores, (sizes, _, stride) = self.scores.rows(begin, end), self.buffer.shape
        entries = self.buffer.view(-1)[: sizes * (end - begin) * stride]
        panels = entries.view(sizes, end - begin, stride)
        shares = _launch_slopes(
            scores, slopes, candidates, factor[:, begin:end].contiguous(), bounds, self.tile, panels
        )
        for panel, (start, stop) in zip(panels, scores.columns, strict=True):
            along = panel[:, : len(scores.candidate)]
            if self.anchor is not None:
                by_anchor = self.anchor[begin:end, start:stop]
                self.add_product(by_anchor, along, scores.candidate[:, start:stop])
            if self.candidate is not None:
                by_candidate = self.candidate[:, start:stop]
                self.add_product(by_candidate, along.T, scores.anchor[:, start:stop])
        if self.row_share is not None and self.column_share is not None:
            self.row_share[:, begin:end] = shares[0].sum(1)
            self.column_share += shares[1].sum(1)

    def result(self, unit: Tensor) -> Gradients:
        """Return everything in the unit of the loss."""
        parts = (self.anchor, self.candidate, self.row_share, self.column_share)
        return Gradients(*(None if part is None else part.mul_(unit) for part in parts))


def _launch_slopes(
    scores: Scores,
    slopes: Slopes,
    candidates: Candidates,
    factor: Tensor,
    bounds: Tensor,
    tile: Tile,
    out: Tensor,
) -> Pair:
    """Fill ``out`` with slopes; return their shares by row and column, of each tile."""
    row_blocks = triton.cdiv(len(scores.anchor), tile.rows)
    column_blocks = triton.cdiv(len(scores.candidate), tile.columns)
    shares = slopes.row, slopes.row
    if scores.nested:
        empty = partial(torch.empty, dtype=torch.float32, device=out.device)
        shares = (
            empty(len(out), column_blocks, len(scores.anchor)),
            empty(len(out), row_blocks, len(scores.candidate)),
        )
    infonce_slopes[(row_blocks * column_blocks,)](
        **scores.arguments(bounds),
        **candidates.arguments(),
        **slopes.arguments(),
        slopes=out,
        row_factor=factor,
        row_share=shares[0],
        column_share=shares[1],
        slopes_stride=out.shape[2],
        **tile.constants(),
        block_depth=tile.depth,
        **tile.launch(),
    )
    return shares
