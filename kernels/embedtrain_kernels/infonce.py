"""Launches of the InfoNCE kernels: buffers, grids, and the merge of partial results."""

from dataclasses import dataclass, replace
from functools import partial

import torch
import triton
from torch import Tensor

from embedtrain_kernels.configurations import Tile, split_dim
from embedtrain_kernels.infonce_backward import infonce_backward
from embedtrain_kernels.infonce_forward import infonce_forward

PROGRAMS = 264
"""Programs wanted for one launch: two for each of the 132 multiprocessors of an H100."""

PANEL_BLOCKS = 64
"""Row blocks of one launch that also makes column sums, so that these take 512 bytes a document."""

LOG2_E = 1.4426950408889634

SLOPE_UNIT = 4096.0
"""Slopes are held in this unit so that a softmax of 1e-7 is still a number in float16."""


Pair = tuple[Tensor, Tensor]
"""Maximum, and sum of exponentials relative to it."""


@dataclass(frozen=True)
class Candidates:
    """Which documents are labels of a query and which may not be its negatives.

    Tensors are int32 and contiguous. Their second axes must be 1, 2 or 4 long, because each length is
    compiled by itself; ``-1`` fills them up.
    """

    labels: Tensor
    """``[queries, labels]`` columns of the documents."""
    relevant: Tensor | None = None
    """``[queries, relevant]`` ids of documents that answer the query."""
    document_ids: Tensor | None = None
    """``[documents]`` ids, small and at least 0; needed with ``relevant``."""
    ceiling: Tensor | None = None
    """``[queries]`` float32: a candidate with a higher similarity is left out and counted as suspected."""

    def rows(self, begin: int, end: int) -> "Candidates":
        """Return the same for a range of queries."""
        return replace(
            self,
            labels=self.labels[begin:end],
            relevant=None if self.relevant is None else self.relevant[begin:end],
            ceiling=None if self.ceiling is None else self.ceiling[begin:end],
        )

    def pointers(self, filler: Tensor) -> dict[str, Tensor]:
        """Return the tensors by parameter name; ``filler`` (float32) stands where there is none."""
        return {
            "labels": self.labels,
            "relevant": self.labels if self.relevant is None else self.relevant,
            "document_ids": self.labels if self.document_ids is None else self.document_ids,
            "ceiling": filler if self.ceiling is None else self.ceiling,
        }

    def constants(self) -> dict[str, int | bool]:
        """Return what is compiled into a kernel."""
        return {
            "num_labels": self.labels.shape[1],
            "num_relevant": 0 if self.relevant is None else self.relevant.shape[1],
            "has_ceiling": self.ceiling is not None,
        }


@dataclass(frozen=True)
class NegativeSums:
    """What one pass over the scores knows about the negatives; logarithms to base 2."""

    row_maximum: Tensor
    row_logsumexp: Tensor
    num_suspected: Tensor | None
    column_logsumexp: Tensor | None


@dataclass(frozen=True)
class Slopes:
    """The slopes of the loss along what the forward pass found, in float32.

    Log-sums (to base 2) are those of :class:`NegativeSums`, ``inf`` where there is no negative. Columns
    are ``None`` where documents have no softmax of their own.
    """

    row_logsumexp: Tensor
    row: Tensor
    """``[queries]`` along the natural log-sum of a query's negatives."""
    label: Tensor
    """``[queries, labels]`` along the logits of the labels, in the order of ``Candidates.labels``."""
    column_logsumexp: Tensor | None = None
    column: Tensor | None = None

    def largest(self) -> Tensor:
        """Return a bound of all slopes; not so small that dividing by it overflows."""
        slopes = (self.row, self.label, self.column)
        peaks = [slope.abs().amax() for slope in slopes if slope is not None]
        return torch.stack(peaks).amax().clamp_min(1e-30)

    def pointers(self, factor: Tensor) -> dict[str, Tensor]:
        """Return the tensors by parameter name, slopes multiplied by ``factor``."""
        column_logsumexp = self.column_logsumexp
        return {
            "row_logsumexp": self.row_logsumexp,
            "row_slope": self.row * factor,
            "label_slope": self.label * factor,
            "column_logsumexp": self.row_logsumexp
            if column_logsumexp is None
            else column_logsumexp,
            "column_slope": self.row if self.column is None else self.column * factor,
        }


def negative_sums(
    query: Tensor,
    document: Tensor,
    log2_scale: Tensor,
    candidates: Candidates,
    tile: Tile,
    *,
    columns: bool = False,
) -> NegativeSums:
    """Sum the exponentials of all negatives of every query and, with ``columns``, of every document."""
    panel = PANEL_BLOCKS * tile.rows if columns else len(query)
    maximum, total = torch.empty_like(log2_scale), torch.empty_like(log2_scale)
    suspected = None if candidates.ceiling is None else torch.zeros_like(candidates.labels[:, 0])
    running: Pair | None = None
    for begin in range(0, len(query), panel):
        end = min(begin + panel, len(query))
        row, counts, column = _forward_panel(
            query[begin:end],
            document,
            log2_scale[begin:end],
            candidates.rows(begin, end),
            tile,
            columns=columns,
        )
        maximum[begin:end], total[begin:end] = merge(*row)
        if suspected is not None and counts is not None:
            suspected[begin:end] = counts
        if column is not None:
            running = merge(*column) if running is None else merge(*_joined(running, column))
    return NegativeSums(
        maximum,
        logarithm(maximum, total),
        suspected,
        None if running is None else logarithm(*running),
    )


def merge(maximum: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Join partial (maximum, sum of exponentials) along the first axis, in a fixed order."""
    highest = maximum.amax(0)
    shift = highest.masked_fill(highest == -torch.inf, 0.0)
    return highest, (total * torch.exp2(maximum - shift)).sum(0)


def logarithm(maximum: Tensor, total: Tensor) -> Tensor:
    """Return the base-2 log-sum-exp, ``-inf`` for an empty sum."""
    return torch.where(total > 0, maximum + torch.log2(total), maximum)


def gradients(
    query: Tensor,
    document: Tensor,
    scale: Tensor,
    unit: Tensor,
    slopes: Slopes,
    candidates: Candidates,
    tile: Tile,
    *,
    own_queries: bool,
) -> Tensor:
    """Return the float32 gradient of the queries or of the documents, multiplied by the scalar ``unit``."""
    own, stream = (query, document) if own_queries else (document, query)
    low, high = split_dim(own.shape[1])
    blocks = triton.cdiv(len(own), tile.rows)
    splits, per_split = split(blocks, len(stream), tile.columns)
    out = torch.empty(splits, *own.shape, dtype=torch.float32, device=own.device)
    largest = slopes.largest()
    log2_scale = scale * LOG2_E
    infonce_backward[(blocks, splits)](
        own=own,
        stream=stream,
        out=out,
        unit=(unit * largest * scale.amax() / SLOPE_UNIT).reshape(1),
        query_factor=scale / scale.amax(),
        log2_scale=log2_scale,
        **candidates.pointers(log2_scale),
        **slopes.pointers(SLOPE_UNIT / largest),
        num_own=len(own),
        num_stream=len(stream),
        stream_per_split=per_split,
        own_stride=own.stride(0),
        stream_stride=stream.stride(0),
        own_queries=own_queries,
        dim=own.shape[1],
        low=low,
        high=high,
        **candidates.constants(),
        has_columns=slopes.column_logsumexp is not None,
        **tile.constants(),
        **tile.launch(),
    )
    return out[0] if splits == 1 else out.sum(0)


def split(num_blocks: int, num_streamed: int, block: int) -> tuple[int, int]:
    """Cut the streamed side so that a launch has about :data:`PROGRAMS` programs.

    Returns the number of ranges and the length of each, a multiple of ``block``. It depends on sizes only,
    never on the device, so that a result can be repeated elsewhere.
    """
    blocks = triton.cdiv(num_streamed, block)
    splits = max(1, min(PROGRAMS // max(1, num_blocks), blocks))
    per_split = triton.cdiv(blocks, splits) * block
    return triton.cdiv(num_streamed, per_split), per_split


def _forward_panel(
    query: Tensor,
    document: Tensor,
    log2_scale: Tensor,
    candidates: Candidates,
    tile: Tile,
    *,
    columns: bool,
) -> tuple[Pair, Tensor | None, Pair | None]:
    """Launch the forward kernel; return its partial sums, still to be merged along the first axis."""
    blocks = triton.cdiv(len(query), tile.rows)
    splits, per_split = split(blocks, len(document), tile.columns)
    empty = partial(torch.empty, dtype=torch.float32, device=query.device)
    row = empty(splits, len(query)), empty(splits, len(query))
    column = (empty(blocks, len(document)), empty(blocks, len(document))) if columns else None
    suspected = None
    if candidates.ceiling is not None:
        suspected = empty(splits, len(query), dtype=torch.int32)
    infonce_forward[(blocks, splits)](
        query=query,
        document=document,
        log2_scale=log2_scale,
        **candidates.pointers(log2_scale),
        row_maximum=row[0],
        row_total=row[1],
        row_suspected=candidates.labels if suspected is None else suspected,
        column_maximum=row[0] if column is None else column[0],
        column_total=row[1] if column is None else column[1],
        num_queries=len(query),
        num_documents=len(document),
        documents_per_split=per_split,
        num_dims=query.shape[1],
        query_stride=query.stride(0),
        document_stride=document.stride(0),
        dim=query.shape[1],
        **candidates.constants(),
        has_columns=columns,
        **tile.constants(),
        block_depth=tile.depth,
        **tile.launch(),
    )
    return row, None if suspected is None else suspected.sum(0), column


def _joined(first: Pair, others: Pair) -> Pair:
    """Put one merged pair in front of partial ones."""
    return torch.cat([first[0][None], others[0]]), torch.cat([first[1][None], others[1]])
