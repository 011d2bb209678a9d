"""InfoNCE in Triton kernels: scores live in registers only; importing this module needs Triton.

One pass forward sums the exponentials of all negatives, and :mod:`embedtrain.ops.infonce.rows` turns the
sums into losses and slopes. The backward pass computes the scores again, once for the queries and once for
the documents: 5 GEMMs, no atomics, the same bits on every run. The scores are never in memory.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from embedtrain_kernels.availability import architecture, interpreting
from embedtrain_kernels.configurations import MASKS, Tile, infonce_tiles, masks_for
from embedtrain_kernels.infonce import (
    LOG2_E,
    Candidates,
    NegativeSums,
    Slopes,
    gradients,
    negative_sums,
)
from jaxtyping import Float, Int, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from embedtrain.errors import UserError
from embedtrain.ops.backend import KERNEL_DTYPES, aligned_rows
from embedtrain.ops.infonce.blocks import listed_similarity
from embedtrain.ops.infonce.directions import all_documents
from embedtrain.ops.infonce.plan import is_symmetric
from embedtrain.ops.infonce.problem import InfoNCEOutput, InfoNCEProblem
from embedtrain.ops.infonce.rows import RowFigures, RowSums, summarise, weigh_rows


class Wanted(NamedTuple):
    """Which inputs receive a gradient."""

    query: bool
    document: bool
    temperature: bool


def infonce_fused(problem: InfoNCEProblem) -> InfoNCEOutput:
    """Compute :func:`embedtrain.ops.infonce.loss.infonce` without scores in memory, or say why not."""
    if obstacle := unsupported(problem):
        raise UserError(
            "infonce(backend='fused')",
            "cannot compute this",
            got=obstacle,
            cure="Use backend='chunked' or 'auto'",
        )
    inputs = (problem.query, problem.document, problem.temperature)
    wanted = Wanted(*(torch.is_grad_enabled() and tensor.requires_grad for tensor in inputs))
    return InfoNCEOutput(*_FusedInfoNCE.apply(*inputs, problem.detached(), wanted))  # type: ignore[no-untyped-call]


def unsupported(problem: InfoNCEProblem) -> str:
    """Say what the kernels lack for this problem; empty if nothing."""
    options, (queries, dim), device = problem.options, problem.query.shape, problem.query.device
    counts = problem.positives.shape[1], _relevant(problem).shape[1]
    obstacles = {
        f"device {device}": device.type != "cuda" and not interpreting(),
        "an architecture without checked tiles": architecture(device) is None,
        f"types {problem.query.dtype} and {problem.document.dtype}": _dtype(problem) is None,
        f"dim {dim}": dim % 16 != 0 or _tiles(problem) is None,
        "no query or no document": 0 in (queries, len(problem.document)),
        f"{counts[0]} positives and {counts[1]} relevant ids": masks_for(*counts, ceiling=True)
        is None,
        "own negatives kept apart": options.negatives != "all",
        "hardness": options.hardness != 0.0,
        "label smoothing": options.label_smoothing != 0.0,
        "these directions": _symmetric(problem) and not is_symmetric(problem),
    }
    return next((name for name, present in obstacles.items() if present), "")


class _FusedInfoNCE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch documents no type
        query: Tensor,
        document: Tensor,
        temperature: Tensor,
        problem: InfoNCEProblem,
        wanted: Wanted,
    ) -> tuple[Tensor, ...]:
        similarity = listed_similarity(query.float(), document, problem.positives)
        best = similarity.masked_fill(~problem.positive_is_used, -torch.inf).amax(1)
        candidates, tiles = _candidates(problem, best), _tiles(problem)
        assert tiles is not None
        sums = negative_sums(
            aligned_rows(query),
            aligned_rows(document),
            LOG2_E / temperature,
            candidates,
            tiles[0],
            columns=_symmetric(problem),
        )
        num_labels = candidates.labels.shape[1]
        loss, slopes = _losses(problem, sums, similarity, num_labels, wanted=any(wanted))
        ctx.save_for_backward(query, document, temperature)
        ctx.slopes, ctx.candidates, ctx.tile, ctx.wanted = slopes, candidates, tiles[1], wanted
        _, eligible, known = all_documents(problem, problem.document, len(query))
        suspected = torch.zeros_like(known) if sums.num_suspected is None else sums.num_suspected
        hardest = sums.row_maximum / LOG2_E * temperature
        figures = RowFigures(best, hardest, eligible, known, suspected.long())
        output = summarise(loss, figures)
        ctx.mark_non_differentiable(*output[1:])
        return tuple(output)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401
        by_loss: Tensor,
        *_: Tensor,
    ) -> tuple[Tensor | None, ...]:
        query, document, temperature = ctx.saved_tensors
        wanted, results = ctx.wanted, [None] * 5
        scale, common = temperature.reciprocal(), (by_loss, ctx.slopes, ctx.candidates, ctx.tile)
        sides = (aligned_rows(query), aligned_rows(document))
        if wanted.query or wanted.temperature:
            step = gradients(*sides, scale, *common, own_queries=True)
            results[0] = step.to(query.dtype) if wanted.query else None
            # Scores depend on similarity / temperature, so the slopes along both are in proportion.
            results[2] = -(query.float() * step).sum(1) * scale if wanted.temperature else None
        if wanted.document:
            step = gradients(*sides, scale, *common, own_queries=False)
            results[1] = step.to(document.dtype)
        return tuple(results)


def _symmetric(problem: InfoNCEProblem) -> bool:
    return problem.options.directions != ("query_to_document",)


def _dtype(problem: InfoNCEProblem) -> str | None:
    same = problem.query.dtype == problem.document.dtype
    return KERNEL_DTYPES.get(problem.query.dtype) if same else None


def _tiles(problem: InfoNCEProblem) -> tuple[Tile, Tile] | None:
    found, dtype = architecture(problem.query.device), _dtype(problem)
    if found is None or dtype is None:
        return None
    tiles: tuple[Tile, Tile] | None = infonce_tiles(found, dtype, problem.query.shape[1])
    return tiles


def _candidates(problem: InfoNCEProblem, best: Float[Tensor, " queries"]) -> Candidates:
    """Fill the masks up to one of the forms that are compiled."""
    relevant, has_margin = _relevant(problem), problem.options.has_margin
    masks = masks_for(problem.positives.shape[1], relevant.shape[1], ceiling=has_margin)
    assert masks is not None
    num_labels, num_relevant, has_ceiling = MASKS[masks]
    ids = torch.zeros(len(problem.document), dtype=torch.int32, device=best.device)
    if problem.document_ids is not None:
        ids, relevant = dense_ids(problem.document_ids, relevant)
    return Candidates(
        labels=_fill(problem.positives, num_labels),
        relevant=_fill(relevant, num_relevant) if num_relevant else None,
        document_ids=ids,
        ceiling=problem.threshold(best) if has_ceiling and not _symmetric(problem) else None,
    )


def _fill(listed: Int[Tensor, "queries listed"], length: int) -> Int[Tensor, "queries length"]:
    return F.pad(listed.int(), (0, length - listed.shape[1]), value=-1).contiguous()


def _relevant(problem: InfoNCEProblem) -> Int64[Tensor, "queries relevant"]:
    """Return the relevant ids without the columns that no row needs."""
    ids = problem.relevant_ids
    if problem.document_ids is None or not ids.numel():
        return ids[:, :0]
    used = int((problem.host.relevant_ids >= 0).sum(1).max())
    return ids.sort(dim=1, descending=True).values[:, :used]


def dense_ids(
    document_ids: Int64[Tensor, " documents"], relevant_ids: Int64[Tensor, "queries relevant"]
) -> tuple[Int[Tensor, " documents"], Int[Tensor, "queries relevant"]]:
    """Replace 63-bit ids by ranks that fit 32 bits and agree exactly where the ids agree.

    Ids of no document, and -1, become -1. A kernel then compares half as many bits for each score.
    """
    ordered = document_ids.sort().values
    rank = torch.searchsorted(ordered, relevant_ids)
    found = ordered[rank.clamp_max(len(ordered) - 1)] == relevant_ids
    rank = rank.masked_fill(~found | (relevant_ids < 0), -1)
    return torch.searchsorted(ordered, document_ids).int(), rank.int()


def _losses(
    problem: InfoNCEProblem,
    sums: NegativeSums,
    similarity: Float[Tensor, "queries positives"],
    num_labels: int,
    *,
    wanted: bool,
) -> tuple[Float[Tensor, ""], Slopes | None]:
    """Return the loss and, where wanted, its slopes along what the forward pass found."""
    first, used, options = problem.positives[:, 0], problem.positive_is_used, problem.options
    found = [sums.row_logsumexp]
    if sums.column_logsumexp is not None:
        found.append(sums.column_logsumexp[first])
    negatives = torch.stack(found, 1) / LOG2_E
    nothing = torch.zeros_like(negatives)
    rows = RowSums(negatives, similarity, problem.temperature, nothing)
    loss, slopes = weigh_rows(rows, nothing, used, problem.share, options, wanted=wanted)
    if slopes is None:
        return loss, None
    label = slopes.positives * problem.temperature[:, None]
    filled = Slopes(
        row_logsumexp=_never_smallest(sums.row_logsumexp),
        row=slopes.negatives[:, 0].contiguous(),
        label=F.pad(label, (0, num_labels - label.shape[1])),
    )
    if sums.column_logsumexp is None:
        return loss, filled
    column = torch.zeros_like(sums.column_logsumexp)
    column = column.index_add_(0, first, slopes.negatives[:, 1])
    log_sum = _never_smallest(sums.column_logsumexp)
    return loss, Slopes(filled.row_logsumexp, filled.row, filled.label, log_sum, column)


def _never_smallest(log_sum: Float[Tensor, " texts"]) -> Float[Tensor, " texts"]:
    """Replace the log of an empty sum, so that ``exp(-inf - log_sum)`` is 0 and not NaN."""
    return log_sum.masked_fill(log_sum == -torch.inf, torch.inf)
