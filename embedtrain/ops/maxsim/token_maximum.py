"""The best token of every text for every row: what MaxSim, XTR and vocabulary pooling share.

``value[r, n] = max over tokens t of text n of <rows[r], tokens[t]>``, computed tile by tile with one GEMM.
The gradient of the similarity has one non-zero element for each ``(r, n)``, at the winning token, so the
backward pass gathers winners instead of multiplying dense grids.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from embedtrain.ops.products import as_fine_as, multiply_into, operand_dtype
from embedtrain.packed import upload

CPU_TILE = 2**20
"""Similarities held at once on a CPU: 4 MiB of float32, so that the maximum reads them from the cache."""

CUDA_TILE = 2**26
"""Similarities held at once elsewhere: 256 MiB of float32, so that launches do not dominate."""

FEW = 1 / 8
"""Share of the values up to which following single gradients is cheaper than following all."""

ENTRIES = 2**19
"""Winners turned into gradients at once; each needs about 40 bytes of indices and weights."""


@dataclass(frozen=True)
class Tile:
    """Some texts, laid out as a rectangle without a mask: a short text repeats its first token.

    A repeated token cannot change a maximum, and :meth:`winners` names the first occurrence.
    """

    texts: Int64[Tensor, " chosen"]
    host_texts: Int64[Tensor, " chosen"]
    """The same on the CPU."""
    lengths: Int64[Tensor, " chosen"]
    tokens: Int64[Tensor, "chosen longest"]

    def winners(self, positions: Int64[Tensor, "*rows chosen"]) -> Int64[Tensor, "*rows chosen"]:
        """Turn columns of the rectangle into positions inside the texts."""
        return positions.masked_fill(positions >= self.lengths, 0)


def tile_elements(device: torch.device) -> int:
    """The number of similarities that a tile may hold on ``device``."""
    return CPU_TILE if device.type == "cpu" else CUDA_TILE


def accumulation_dtype(*tensors: Tensor) -> torch.dtype:
    """Float64 where an input is float64, else float32: never less, whatever the inputs are."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def starts_of(lengths: Int64[Tensor, " texts"]) -> Int64[Tensor, " texts"]:
    """The position of the first token of each text."""
    return lengths.cumsum(0) - lengths


def cut_texts(
    lengths: Int64[Tensor, " texts"],
    num_rows: int,
    elements: int,
    device: torch.device | str = "cpu",
) -> Iterator[Tile]:
    """Cut non-empty texts, longest first, into tiles of at most ``elements`` similarities.

    ``lengths`` lie on the CPU, where shapes are decided; what a tile holds lies on ``device``. Neighbours in that order have nearly the same length, so that little is computed twice. A single text
    that is longer than the budget still makes one tile.
    """
    order = lengths.argsort(descending=True, stable=True)
    longest_first = lengths[order].tolist()
    there = upload(torch.stack([order, lengths[order], starts_of(lengths)[order]]), device)
    begin = 0
    while begin < len(longest_first):
        longest = longest_first[begin]
        end = begin + max(1, elements // max(1, num_rows * longest))
        texts, sizes, starts = there[:, begin:end]
        within = torch.arange(longest, device=device).expand(len(texts), -1)
        within = within.where(within < sizes[:, None], 0)
        yield Tile(texts, order[begin:end], sizes, starts[:, None] + within)
        begin = end


def sum_weighted_rows(
    table: Float[Tensor, "sources dim"],
    source: Int[Tensor, " entries"],
    target: Int[Tensor, " entries"],
    weights: Float[Tensor, " entries"],
    num_targets: int,
) -> Float[Tensor, "targets dim"]:
    """``result[target[e]] += weights[e] * table[source[e]]`` in an order that never changes.

    Sorting by target makes it a fused gather-multiply-add; ``index_add_`` would use float atomics on CUDA.
    """
    if not len(target):
        return table.new_zeros(num_targets, table.shape[1])
    ordered, order = target.sort(stable=True)
    offsets = torch.searchsorted(ordered, torch.arange(num_targets, device=target.device))
    return F.embedding_bag(
        source[order].long(), table, offsets, mode="sum", per_sample_weights=weights[order]
    )


def segment_sums(
    values: Float[Tensor, "tokens columns"], lengths: Int64[Tensor, " texts"]
) -> Float[Tensor, "texts columns"]:
    """Add the rows of each text, whose lengths lie on the CPU; a text without tokens gives 0."""
    if len(lengths) and bool((lengths == lengths[0]).all()):
        return values.reshape(len(lengths), int(lengths[0]), values.shape[1]).sum(1)
    there = upload(lengths, values.device)
    return torch.segment_reduce(values, "sum", lengths=there, axis=0, unsafe=True, initial=0)


def token_maximum(
    rows: Float[Tensor, "rows dim"],
    tokens: Float[Tensor, "tokens dim"],
    lengths: Int64[Tensor, " texts"],
    top_k: int | None = None,
    *,
    few_gradients: bool = False,
) -> tuple[Float[Tensor, "rows texts"], Float[Tensor, " rows"]]:
    """Return the best value of every text for every row, and the ``top_k``-th best token of each row.

    Ties go to the first token. The second result has no gradient and is ``-inf`` where ``top_k`` is not
    given or where there are fewer tokens. Memory beyond the results: one tile, and the winners
    (1, 2 or 4 bytes for each value) where a gradient is wanted.

    Args:
        rows: What is compared with every text.
        tokens: The tokens of the texts, end to end.
        lengths: The number of tokens of each text, at least 1, on the CPU.
        top_k: How many tokens, over all texts, count as near to a row.
        few_gradients: Most values will get a gradient of exactly 0, as behind a ReLU: the backward pass looks for those
            that do not, for which a device is waited for, and follows them alone.
    """
    assert int(lengths.sum()) == len(tokens), "lengths do not add up to the tokens"
    wanted = torch.is_grad_enabled() and (rows.requires_grad or tokens.requires_grad)
    result: tuple[Tensor, Tensor] = _TokenMaximum.apply(  # type: ignore[no-untyped-call]
        rows, tokens, lengths, top_k, wanted, few_gradients
    )
    return result


class _TokenMaximum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch documents no type
        rows: Tensor,
        tokens: Tensor,
        lengths: Tensor,
        top_k: int | None,
        wanted: bool,
        few_gradients: bool,
    ) -> tuple[Tensor, Tensor]:
        dtype, shape = accumulation_dtype(rows, tokens), (len(rows), len(lengths))
        values = rows.new_empty(shape, dtype=dtype)
        threshold = rows.new_full(shape[:1], -torch.inf, dtype=dtype)
        winners = rows.new_empty(shape, dtype=_smallest_integer(lengths)) if wanted else None
        k = top_k if top_k is not None and top_k <= len(tokens) else None
        for block, tiles in _similarities(rows, tokens, lengths, few_rows=k is not None):
            best = values.new_empty(block.stop - block.start, 0)
            for tile, similarity in tiles:
                if winners is None:
                    values[block, tile.texts] = similarity.amax(-1)
                else:
                    values[block, tile.texts], positions = similarity.max(-1)
                    winners[block, tile.texts] = tile.winners(positions).to(winners.dtype)
                if k is not None:
                    best = _keep_best(best, similarity, tile, k)
            if k is not None:
                threshold[block] = best.amin(-1)
        ctx.mark_non_differentiable(threshold)
        ctx.lengths = lengths
        ctx.few_gradients = few_gradients
        ctx.save_for_backward(rows, tokens, winners)
        return values, threshold

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch documents no type
        rows, tokens, winners = ctx.saved_tensors
        dtype = gradient.dtype
        row_values, token_values = rows.to(dtype), tokens.to(dtype)
        entries = gradient.nonzero() if ctx.few_gradients else None
        if entries is not None and len(entries) <= FEW * gradient.numel():
            row, text = entries.unbind(1)
            winner = winners[row, text] + upload(starts_of(ctx.lengths), rows.device)[text]
            known = row_values, token_values, row, winner, gradient[row, text]
            return (*_follow(known, ctx.needs_input_grad, rows, tokens), None, None, None, None)
        row_gradient = torch.zeros_like(row_values) if ctx.needs_input_grad[0] else None
        token_gradient = torch.empty_like(token_values) if ctx.needs_input_grad[1] else None
        ends = [0, *ctx.lengths.cumsum(0).tolist()]
        starts = upload(starts_of(ctx.lengths), rows.device)
        step = max(1, ENTRIES // max(1, len(rows)))
        for begin in range(0, len(starts), step):
            texts = slice(begin, begin + step)
            weights = gradient[:, texts].contiguous()
            winner = winners[:, texts] + starts[texts]
            if row_gradient is not None:
                row_gradient += F.embedding_bag(
                    winner, token_values, mode="sum", per_sample_weights=weights
                )
            if token_gradient is not None:
                first, last = ends[begin], ends[min(begin + step, len(starts))]
                row = torch.arange(len(rows), device=rows.device)[:, None].expand_as(winner)
                token_gradient[first:last] = sum_weighted_rows(
                    row_values,
                    row.flatten(),
                    winner.flatten() - first,
                    weights.flatten(),
                    last - first,
                )
        return (
            None if row_gradient is None else row_gradient.to(rows.dtype),
            None if token_gradient is None else token_gradient.to(tokens.dtype),
            None,
            None,
            None,
            None,
        )


def _follow(
    known: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    wanted: Sequence[bool],
    rows: Tensor,
    tokens: Tensor,
) -> tuple[Tensor | None, Tensor | None]:
    """Return both gradients from single entries, :data:`ENTRIES` at once: their rows, winners and own gradients."""
    row_values, token_values, *entries = known
    by_row = torch.zeros_like(row_values) if wanted[0] else None
    by_token = torch.zeros_like(token_values) if wanted[1] else None
    parts = zip(*(torch.split(entry, ENTRIES) for entry in entries), strict=True)
    for row, winner, weights in parts:
        if by_row is not None:
            by_row += sum_weighted_rows(token_values, winner, row, weights, len(rows))
        if by_token is not None:
            by_token += sum_weighted_rows(row_values, row, winner, weights, len(tokens))
    return (
        None if by_row is None else by_row.to(rows.dtype),
        None if by_token is None else by_token.to(tokens.dtype),
    )


def _similarities(
    rows: Tensor, tokens: Tensor, lengths: Tensor, few_rows: bool
) -> Iterator[tuple[slice, Iterator[tuple[Tile, Tensor]]]]:
    """For each block of rows, the tiles of texts and their similarities ``[rows, chosen, longest]``.

    ``few_rows`` makes wide tiles, because a running top-k is merged once for each tile. A similarity is
    valid until the next one is asked for: all share one buffer.
    """
    dtype, elements = accumulation_dtype(rows, tokens), tile_elements(rows.device)
    operands = operand_dtype(rows, tokens, wide=dtype)
    longest = int(lengths.max()) if len(lengths) else 1
    size = max(1, min(len(rows), 128 if few_rows else 4096, elements // longest))
    buffer = rows.new_empty(
        max(size * longest, min(elements, size * len(lengths) * longest)), dtype=dtype
    )

    def tiles(block: slice) -> Iterator[tuple[Tile, Tensor]]:
        left = rows[block].to(operands)
        for tile in cut_texts(lengths, size, elements, rows.device):
            right = tokens[tile.tokens.flatten()].to(operands)
            similarity = buffer[: len(left) * len(right)].view(len(left), len(right))
            with as_fine_as(rows.dtype, rows.device):
                multiply_into(similarity, left, right.T)
            yield tile, similarity.view(len(left), *tile.tokens.shape)

    for begin in range(0, len(rows), size):
        block = slice(begin, min(begin + size, len(rows)))
        yield block, tiles(block)


def _keep_best(best: Tensor, similarity: Tensor, tile: Tile, top_k: int) -> Tensor:
    """Merge a tile into the running ``top_k`` best tokens of each row, repeated tokens left out."""
    within = torch.arange(similarity.shape[-1], device=similarity.device)
    repeated = within >= tile.lengths[:, None]
    candidates = similarity.masked_fill_(repeated, -torch.inf).flatten(1)
    merged = torch.cat([best, candidates], 1)
    return merged.topk(min(top_k, merged.shape[1]), sorted=False).values


def _smallest_integer(lengths: Tensor) -> torch.dtype:
    longest = int(lengths.max()) if len(lengths) else 1
    if longest <= 2**8:
        return torch.uint8
    return torch.int16 if longest <= 2**15 else torch.int32
