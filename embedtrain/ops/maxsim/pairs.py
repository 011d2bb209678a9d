"""MaxSim of each document with one query, its owner: the scores of candidate lists and rerankers."""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from embedtrain.ops.maxsim.token_maximum import (
    Tile,
    accumulation_dtype,
    cut_texts,
    starts_of,
    sum_weighted_rows,
    tile_elements,
)
from embedtrain.ops.products import as_fine_as, multiply, operand_dtype
from embedtrain.packed import upload
from embedtrain.types import TokenEmbeddings


def paired_maxsim(
    query: TokenEmbeddings, document: TokenEmbeddings, owners: Int64[Tensor, " documents"]
) -> Float[Tensor, " documents"]:
    """Score document ``n`` against query ``owners[n]`` with one batched GEMM for each tile of pairs.

    Documents must not be empty, and owners lie on the CPU. Saved for the backward pass: three integers for
    each query token of each pair, never the similarities.
    """
    sides = (query.tokens, query.sizes, document.tokens, document.sizes)
    wanted = torch.is_grad_enabled() and (sides[0].requires_grad or sides[2].requires_grad)
    scores: Tensor = _PairedMaxsim.apply(*sides, owners, wanted)  # type: ignore[no-untyped-call]
    return scores


class _PairedMaxsim(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch documents no type
        query: Tensor,
        query_lengths: Tensor,
        document: Tensor,
        document_lengths: Tensor,
        owners: Tensor,
        wanted: bool,
    ) -> Tensor:
        dtype, device = accumulation_dtype(query, document), query.device
        operands = operand_dtype(query, document, wide=dtype)
        scores = query.new_empty(len(owners), dtype=dtype)
        document_starts = upload(starts_of(document_lengths), device)
        longest = int(query_lengths.max()) if len(query_lengths) else 0
        winners = [document_starts.new_empty(3, 0)]
        for tile in cut_texts(document_lengths, longest, tile_elements(device), device):
            rows, real = _query_rows(tile, query_lengths, owners, longest)
            left, right = query[upload(rows, device)], document[tile.tokens]
            with as_fine_as(query.dtype, query.device):
                found = multiply(left.to(operands), right.to(operands).mT, dtype)
            best, positions = found.max(-1)
            scores[tile.texts] = best.where(upload(real, device), 0).sum(1)
            if wanted:
                entries = real.flatten().nonzero().squeeze(1)
                pair = tile.host_texts[:, None].expand_as(rows)
                lists = torch.stack([rows.flatten()[entries], pair.flatten()[entries], entries])
                row, pair, entry = upload(lists, device)
                won = document_starts[tile.texts] + tile.winners(positions.T)
                winners.append(torch.stack([row, won.T.flatten()[entry], pair]))
        ctx.save_for_backward(query, document, torch.cat(winners, 1))
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        query, document, winners = ctx.saved_tensors
        row, winner, pair = winners
        weights = gradient[pair]
        result: list[Tensor | None] = [None] * 6
        if ctx.needs_input_grad[0]:
            table = document.to(gradient.dtype)
            summed = sum_weighted_rows(table, winner, row, weights, len(query))
            result[0] = summed.to(query.dtype)
        if ctx.needs_input_grad[2]:
            table = query.to(gradient.dtype)
            summed = sum_weighted_rows(table, row, winner, weights, len(document))
            result[2] = summed.to(document.dtype)
        return tuple(result)


def _query_rows(
    tile: Tile, query_lengths: Tensor, owners: Tensor, longest: int
) -> tuple[Tensor, Tensor]:
    """The query tokens of each pair of a tile as a rectangle, and which of them are real; on the CPU."""
    owner = owners[tile.host_texts]
    lengths = query_lengths[owner, None]
    within = torch.arange(longest).expand(len(owner), -1)
    real = within < lengths
    # An empty query at the very end starts past the last token; any row will do, as nothing of it is real.
    starts = starts_of(query_lengths)[owner, None].where(lengths > 0, 0)
    return starts + within.where(real, 0), real
