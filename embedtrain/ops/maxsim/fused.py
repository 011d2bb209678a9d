"""MaxSim in Triton kernels: similarities live in registers only; importing this module needs Triton.

Beyond inputs and gradients: the scores, and four bytes for the winner of each query token of each pair where
a gradient is wanted. The backward pass sorts the winners and sums rows, so that the same bits come out on
every run.
"""

from typing import Any

import torch
import torch.nn.functional as F
from embedtrain_kernels.availability import architecture, interpreting
from embedtrain_kernels.configurations import Tile, maxsim_tile
from embedtrain_kernels.maxsim import Pairs, document_gradient, maxsim_scores, query_gradient
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from embedtrain.ops.backend import KERNEL_DTYPES, aligned_rows
from embedtrain.types import TokenEmbeddings


def unsupported(
    query: Float[Tensor, "query_tokens dim"], document: Float[Tensor, "document_tokens dim"]
) -> str:
    """Say what the kernels lack for these tokens; empty if nothing."""
    if query.device.type != "cuda" and not interpreting():
        return f"device {query.device}"
    if architecture(query.device) is None:
        return "an architecture without checked tiles"
    if query.dtype != document.dtype or query.dtype not in KERNEL_DTYPES:
        return f"types {query.dtype} and {document.dtype}"
    dim = query.shape[1]
    return f"dim {dim}" if dim % 16 != 0 or _tile(query) is None else ""


def maxsim_fused(
    query: TokenEmbeddings, document: TokenEmbeddings
) -> Float[Tensor, "queries documents"]:
    """Score every query against every document; documents must not be empty."""
    num_queries, num_documents, device = len(query), len(document), query.tokens.device
    queries = torch.arange(num_queries, device=device, dtype=torch.int32)
    documents = torch.arange(num_documents, device=device, dtype=torch.int32)
    # Document-major: programs that run together read the same document from the cache.
    documents = documents.repeat_interleave(num_queries, output_size=num_queries * num_documents)
    pairs = Pairs(
        query=queries.repeat(num_documents),
        document=documents,
        query_starts=F.pad(query.lengths.cumsum(0), (1, 0)).int(),
        document_starts=F.pad(document.lengths.cumsum(0), (1, 0)).int(),
        longest=int(query.sizes.max()) if num_queries else 0,
    )
    sides = query.tokens, document.tokens
    wanted = torch.is_grad_enabled() and any(side.requires_grad for side in sides)
    scores: Tensor = _FusedMaxsim.apply(*sides, pairs, wanted)  # type: ignore[no-untyped-call]
    return scores.view(num_documents, num_queries).T


def _tile(query: Tensor) -> Tile | None:
    found = architecture(query.device)
    if found is None:
        return None
    tile: Tile | None = maxsim_tile(found, KERNEL_DTYPES[query.dtype], query.shape[1])
    return tile


class _FusedMaxsim(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch documents no type
        query: Tensor,
        document: Tensor,
        pairs: Pairs,
        wanted: bool,
    ) -> Tensor:
        tile = _tile(query)
        assert tile is not None
        scores: Tensor
        sides = (aligned_rows(query), aligned_rows(document))
        scores, winners = maxsim_scores(*sides, pairs, tile, save_winners=wanted)
        ctx.pairs = pairs
        ctx.save_for_backward(query, document, winners)
        return scores

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401
        gradient: Tensor,
    ) -> tuple[Tensor | None, ...]:
        query, document, winners = ctx.saved_tensors
        arguments = (
            aligned_rows(query),
            aligned_rows(document),
            ctx.pairs,
            winners,
            gradient.contiguous(),
        )
        return (
            query_gradient(*arguments) if ctx.needs_input_grad[0] else None,
            document_gradient(*arguments) if ctx.needs_input_grad[1] else None,
            None,
            None,
        )
