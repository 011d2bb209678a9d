"""Launches of the MaxSim kernels: buffers and the lists that let every token sum its own gradient."""

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from embedtrain_kernels.configurations import SMALLEST_DIM, Tile
from embedtrain_kernels.maxsim_kernels import maxsim_backward, maxsim_forward

ENTRIES = 32
"""Tokens that one step of the backward kernel gathers."""


@dataclass(frozen=True)
class Pairs:
    """Which query meets which document, and where their tokens lie; all int32."""

    query: Tensor
    document: Tensor
    query_starts: Tensor
    """``[queries + 1]`` first token of each query, and the number of all."""
    document_starts: Tensor
    longest: int
    """Tokens of the longest query."""

    def __len__(self) -> int:
        return len(self.query)


def maxsim_scores(
    query: Tensor, document: Tensor, pairs: Pairs, tile: Tile, *, save_winners: bool
) -> tuple[Tensor, Tensor]:
    """Return the float32 score of each pair and, if saved, ``[pairs, longest]`` winning tokens.

    Winners are rows of ``document``, -1 beyond the tokens of a short query.
    """
    device = query.device
    scores = torch.empty(len(pairs), dtype=torch.float32, device=device)
    shape = (len(pairs), pairs.longest) if save_winners else (0, pairs.longest)
    winners = torch.full(shape, -1, dtype=torch.int32, device=device)
    if not len(pairs):
        return scores, winners
    maxsim_forward[(len(pairs),)](
        query=query,
        document=document,
        pair_query=pairs.query,
        pair_document=pairs.document,
        query_starts=pairs.query_starts,
        document_starts=pairs.document_starts,
        scores=scores,
        winners=winners if save_winners else pairs.query,
        longest=pairs.longest,
        query_stride=query.stride(0),
        document_stride=document.stride(0),
        save_winners=save_winners,
        dim=query.shape[1],
        padded_dim=padded(query.shape[1]),
        **tile.constants(),
        **tile.launch(),
    )
    return scores, winners


def query_gradient(
    query: Tensor, document: Tensor, pairs: Pairs, winners: Tensor, gradient: Tensor
) -> Tensor:
    """Sum, for every query token, the document tokens that it chose."""
    by_query, order = pairs.query.sort(stable=True)
    texts = torch.arange(len(pairs.query_starts), device=query.device)
    lengths = pairs.query_starts.diff()
    text_of_row = texts[:-1].repeat_interleave(lengths, output_size=len(query))
    return _gather(
        document,
        torch.empty_like(query),
        pairs,
        winners,
        gradient,
        order=order,
        pointers=torch.searchsorted(by_query, texts.int()),
        text_of_row=text_of_row,
    )


def document_gradient(
    query: Tensor, document: Tensor, pairs: Pairs, winners: Tensor, gradient: Tensor
) -> Tensor:
    """Sum, for every document token, the query tokens that chose it."""
    by_token, order = winners.flatten().sort(stable=True)
    tokens = torch.arange(len(document) + 1, device=query.device, dtype=torch.int32)
    return _gather(
        query,
        torch.empty_like(document),
        pairs,
        winners,
        gradient,
        order=order,
        pointers=torch.searchsorted(by_token, tokens),
        text_of_row=None,
    )


def padded(dim: int) -> int:
    """Return the power of two that holds ``dim``."""
    return max(SMALLEST_DIM, triton.next_power_of_2(dim))


def _gather(
    source: Tensor,
    out: Tensor,
    pairs: Pairs,
    winners: Tensor,
    gradient: Tensor,
    *,
    order: Tensor,
    pointers: Tensor,
    text_of_row: Tensor | None,
) -> Tensor:
    if not len(out):
        return out
    maxsim_backward[(len(out),)](
        source=source,
        out=out,
        gradient=gradient,
        winners=winners,
        order=order,
        pointers=pointers,
        text_of_row=order if text_of_row is None else text_of_row,
        query_starts=pairs.query_starts,
        pair_query=pairs.query,
        longest=pairs.longest,
        source_stride=source.stride(0),
        own_queries=text_of_row is not None,
        dim=source.shape[1],
        padded_dim=padded(source.shape[1]),
        block_rows=ENTRIES,
        num_warps=4,
        maxnreg=255,
    )
    return out
