"""The heavy steps of InfoNCE on one tile of logits."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def fill_tile(
    tile: Float[Tensor, "rows columns"],
    anchor: Float[Tensor, "rows dim"],
    candidate: Float[Tensor, "columns dim"],
    scale: Float[Tensor, " rows"],
) -> None:
    """Write the logits ``scale * <anchor, candidate>`` (one GEMM)."""
    torch.mm(anchor * scale[:, None], candidate.T, out=tile)


def anchor_step(
    tile: Float[Tensor, "rows columns"],
    candidate: Float[Tensor, "columns dim"],
    factor: Float[Tensor, " rows"],
) -> Float[Tensor, "rows dim"]:
    """Return the gradient of the anchors, ``factor * (tile @ candidate)`` (one GEMM).

    The factor holds what a softmax divides by, so that no pass over the tile is spent on it.
    """
    return torch.mm(tile, candidate).mul_(factor[:, None])


def add_candidate_step(
    gradient: Float[Tensor, "columns dim"],
    tile: Float[Tensor, "rows columns"],
    anchor: Float[Tensor, "rows dim"],
    factor: Float[Tensor, " rows"],
) -> None:
    """Add ``tile.T @ (factor * anchor)`` to the gradient of the candidates (one GEMM).

    ``addmm(out=)`` and not ``addmm_``, which torch's flop counter does not see (torch 2.13).
    """
    torch.addmm(gradient, tile.T, anchor * factor[:, None], out=gradient)


def listed_similarity(
    anchor: Float[Tensor, "rows dim"],
    candidate: Float[Tensor, "columns dim"],
    listed: Int64[Tensor, "rows listed"],
) -> Float[Tensor, "rows listed"]:
    """Return the similarity of each anchor with its few listed candidates (unused ones: any number)."""
    scores = [
        (anchor * candidate[column].to(anchor.dtype)).sum(1) for column in listed.clamp_min(0).T
    ]
    return torch.stack(scores, 1)


def add_listed_steps(
    gradients: tuple[Float[Tensor, "rows dim"] | None, Float[Tensor, "columns dim"] | None],
    anchor: Float[Tensor, "rows dim"],
    candidate: Float[Tensor, "columns dim"],
    listed: Int64[Tensor, "rows listed"],
    coefficient: Float[Tensor, "rows listed"],
) -> None:
    """Add the gradients of :func:`listed_similarity` to those of anchors and candidates.

    Coefficients of unused entries must be 0.
    """
    to_anchor, to_candidate = gradients
    for column, weight in zip(listed.clamp_min(0).T, coefficient.T, strict=True):
        if to_anchor is not None:
            to_anchor.addcmul_(candidate[column].to(anchor.dtype), weight[:, None])
        if to_candidate is not None:
            to_candidate.index_add_(0, column, anchor * weight[:, None])
