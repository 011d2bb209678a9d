"""InfoNCE at several prefixes in Triton kernels: one pass over the scores; importing this module needs Triton.

As in :mod:`embedtrain.ops.infonce.nested`, products of a size continue those of the next shorter one. A
program looks at its tile after each size, and the backward pass leaves the slopes of each size summed with those
of all larger ones, so that each coordinate is multiplied once: 4 GEMMs of the longest size altogether.
"""

from dataclasses import replace

import torch
from embedtrain_kernels.infonce import LOG2_E, Gradients, gradients, negative_sums
from embedtrain_kernels.infonce_arguments import NegativeSums, Scores, Slopes
from jaxtyping import Float
from torch import Tensor

from embedtrain.ops.backend import aligned_rows
from embedtrain.ops.infonce.blocks import listed_similarity
from embedtrain.ops.infonce.fused import kernel_tile, never_smallest, unsupported
from embedtrain.ops.infonce.fused_directions import (
    eligible_counts,
    known_counts,
    query_candidates,
)
from embedtrain.ops.infonce.nested import Inputs, NestedGradients, Sizes
from embedtrain.ops.infonce.problem import InfoNCEProblem
from embedtrain.ops.infonce.rows import RowFigures, RowSums, weigh_rows
from embedtrain.ops.products import add_product


def unsupported_nested(problem: InfoNCEProblem, sizes: Sizes) -> str:
    """Say what the kernels lack for this problem at these sizes; empty if nothing."""
    if any(dim % 16 for dim in sizes.dims):
        return f"sizes {sizes.dims}, of which one is no multiple of 16"
    if problem.options.negatives != "all":
        return f"negatives of {problem.options.negatives} queries at several sizes"
    return unsupported(problem)


def compute_fused(
    inputs: Inputs, problem: InfoNCEProblem, sizes: Sizes, wanted: bool
) -> tuple[Float[Tensor, " sizes"], list[RowFigures], NestedGradients | None]:
    """Return losses, figures and, where wanted, the gradients of the weighted sum."""
    candidates = query_candidates(problem)
    tile = kernel_tile(problem, candidates, nested=True)
    scale = inputs.query_scale / problem.temperature
    scores = Scores(
        anchor=aligned_rows(problem.query),
        candidate=aligned_rows(problem.document),
        scale=scale,
        log2_scale=scale * LOG2_E,
        candidate_scale=inputs.document_scale,
        segments=tuple(sizes.segments()),
    )
    sums, positives = negative_sums(scores, candidates, tile), _positives(inputs, problem, sizes)
    each = [
        _weigh(problem, sums.row_logsumexp[k], some, wanted=wanted)
        for k, some in enumerate(positives)
    ]
    losses = torch.stack([loss for loss, _ in each])
    figures = _figures(problem, sums, positives)
    if not wanted:
        return losses, figures, None
    found = [slopes for _, slopes in each if slopes is not None]
    slopes = _slopes(problem, sums, found, sizes)
    made = _gradients(inputs, problem, gradients(scores, slopes, candidates, tile, add_product))
    # The temperature divides the margin too, which is in no product; labels are slopes times the temperature.
    shift = problem.options.positive_margin * slopes.label.sum((0, 2)) / problem.temperature**2
    return losses, figures, replace(made, temperature=made.temperature + shift)


def _positives(
    inputs: Inputs, problem: InfoNCEProblem, sizes: Sizes
) -> Float[Tensor, "sizes queries positives"]:
    """Return the similarities of the positives at each size, in float32."""
    parts = [
        listed_similarity(
            inputs.query[:, start:stop], inputs.document[:, start:stop], problem.positives
        )
        for start, stop in sizes.segments()
    ]
    beside = inputs.document_scale[:, problem.positives.clamp_min(0)]
    return torch.stack(parts).cumsum(0) * inputs.query_scale[:, :, None] * beside


def _weigh(
    problem: InfoNCEProblem,
    log_sum: Float[Tensor, " queries"],
    positives: Float[Tensor, "queries positives"],
    *,
    wanted: bool,
) -> tuple[Float[Tensor, ""], RowSums | None]:
    negatives = (log_sum / LOG2_E)[:, None]
    nothing = torch.zeros_like(negatives)
    rows = RowSums(negatives, positives, problem.temperature, nothing)
    used, share, options = problem.positive_is_used, problem.share, problem.options
    return weigh_rows(rows, nothing, used, share, options, wanted=wanted)


def _figures(
    problem: InfoNCEProblem,
    sums: NegativeSums,
    positives: Float[Tensor, "sizes queries positives"],
) -> list[RowFigures]:
    best = positives.masked_fill(~problem.positive_is_used, -torch.inf).amax(2)
    hardest = sums.row_maximum / LOG2_E * problem.temperature
    eligible, known = eligible_counts(problem), known_counts(problem)
    none = torch.zeros_like(known)
    return [RowFigures(*pair, eligible, known, none) for pair in zip(best, hardest, strict=True)]


def _slopes(
    problem: InfoNCEProblem, sums: NegativeSums, found: list[RowSums], sizes: Sizes
) -> Slopes:
    weighed = list(zip(found, sizes.weights, strict=True))
    label = torch.stack([slopes.positives * weight for slopes, weight in weighed])
    return Slopes(
        row_logsumexp=never_smallest(sums.row_logsumexp),
        row=torch.stack([slopes.negatives[:, 0] * weight for slopes, weight in weighed]),
        label=label * problem.temperature[:, None],
    )


def _gradients(inputs: Inputs, problem: InfoNCEProblem, found: Gradients) -> NestedGradients:
    """Logits are products times three factors: the slope along the logarithm of each is a sum of shares."""
    assert found.anchor is not None
    assert found.candidate is not None
    assert found.row_share is not None
    assert found.column_share is not None
    return NestedGradients(
        query=found.anchor,
        document=found.candidate,
        query_scale=found.row_share / inputs.query_scale,
        document_scale=found.column_share / inputs.document_scale,
        temperature=-found.row_share.sum(0) / problem.temperature,
    )
