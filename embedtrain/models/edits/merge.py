"""Merge the weights of models that were trained from the same start: soups, spheres, task vectors, fusion."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from embedtrain.errors import UserError

Weights = Mapping[str, Tensor]
Method = Literal["linear", "slerp", "task_vectors", "delta", "concatenate"]
Granularity = Literal["tensor", "row", "element"]


def merge_weights(
    models: Sequence[Weights],
    shares: Sequence[float],
    method: Method,
    base: Weights | None = None,
    granularity: Granularity = "tensor",
) -> dict[str, Tensor]:
    r"""Return the weights of the merged model, tensor by tensor.

    - ``linear``: $\theta = \sum_k w_k \theta_k$, with $w_k$ the shares over their sum (a soup).
    - ``slerp``: between two models, along the arc: $\frac{\sin((1 - t)\,\omega)}{\sin \omega} \theta_1 +
      \frac{\sin(t\,\omega)}{\sin \omega} \theta_2$, t the second's share and $\omega$ the angle between the flattened
      tensors; those that point the same way, or nowhere, are mixed linearly.
    - ``task_vectors``: $\theta = \theta_0 + \sum_k s_k (\theta_k - \theta_0)$; shares are not normalised, and a
      negative one takes away what a model learned.
    - ``delta``: $\theta = \theta_0 + \sum_k a_k (\theta_k - \theta_0)$, $a_k = w_k d_k / \sum_j w_j d_j$, $d_k$ the mean
      of $|\theta_k - \theta_0|$ over the tensor, the row or the element: who moved further decides more. Of
      CoDiEmb's delta-guided fusion the paper does not publish its formula; ours weighs by the size of the parameter's change.

    Numbers are mixed in float64 and returned in the first model's type; whole numbers are taken from the first.

    Source: Wortsman et al. (2022), https://arxiv.org/abs/2203.05482 (soups); Ilharco et al. (2023),
    https://arxiv.org/abs/2212.04089 (task vectors).

    Args:
        models: With the same names and shapes.
        shares: One per model.
        method: How they are mixed.
        base: What all were trained from, $\theta_0$.
        granularity: Of ``delta``.
    """
    _check(models, shares, method, base)
    merged = {}
    for name, first in models[0].items():
        if not first.is_floating_point():
            merged[name] = first.clone()
            continue
        tensors = [model[name].detach().cpu().double() for model in models]
        start = None if base is None else base[name].detach().cpu().double()
        merged[name] = _mix(tensors, shares, method, start, granularity).to(first.dtype)
    return merged


def _mix(
    tensors: Sequence[Tensor],
    shares: Sequence[float],
    method: Method,
    start: Tensor | None,
    granularity: Granularity,
) -> Tensor:
    total = sum(shares)
    if method == "linear":
        return _weighted(tensors, [share / total for share in shares])
    if method == "slerp":
        return _on_the_arc(tensors[0], tensors[1], shares[1] / total)
    assert start is not None
    deltas = [tensor - start for tensor in tensors]
    if method == "task_vectors":
        return start + _weighted(deltas, shares)
    sizes = [share * _size(delta, granularity) for share, delta in zip(shares, deltas, strict=True)]
    whole = torch.stack(sizes).sum(0)
    factors = [torch.where(whole > 0, size / whole.clamp_min(1e-300), 0.0) for size in sizes]
    moved = [factor * delta for factor, delta in zip(factors, deltas, strict=True)]
    return start + torch.stack(moved).sum(0)


def _weighted(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    return torch.stack([weight * x for weight, x in zip(weights, tensors, strict=True)]).sum(0)


def _size(delta: Tensor, granularity: Granularity) -> Tensor:
    """Return the mean change of the whole tensor, of each row, or of each element."""
    if granularity == "element":
        return delta.abs()
    if granularity == "row" and delta.dim() > 1:
        return delta.abs().flatten(1).mean(1).view(-1, *[1] * (delta.dim() - 1))
    return delta.abs().mean()


def _on_the_arc(first: Tensor, second: Tensor, share: float) -> Tensor:
    lengths = first.norm() * second.norm()
    if lengths == 0:
        return (1 - share) * first + share * second
    angle: Tensor = ((first * second).sum() / lengths).clamp(-1, 1).arccos()
    if angle.sin() < 1e-6:  # the same direction: the arc is a line; opposite ones have no one arc
        return (1 - share) * first + share * second
    arc = ((1 - share) * angle).sin() * first + (share * angle).sin() * second
    mixed: Tensor = arc / angle.sin()
    return mixed


def _check(
    models: Sequence[Weights], shares: Sequence[float], method: Method, base: Weights | None
) -> None:
    if len(shares) != len(models):
        raise UserError(
            "--weight", f"is needed for each of the {len(models)} models", got=list(shares)
        )
    if method in ("task_vectors", "delta") and base is None:
        raise UserError("--base", f"is missing, which {method} measures changes from")
    if method == "slerp" and len(models) != 2:
        raise UserError("--method", "slerp goes between two models", got=len(models))
    if method != "task_vectors" and (min(shares) < 0 or sum(shares) <= 0):
        raise UserError("--weight", "must not be negative, nor all 0", got=list(shares))
    shapes = {name: tensor.shape for name, tensor in models[0].items()}
    for other in (*models[1:], *([base] if base is not None else [])):
        if {name: tensor.shape for name, tensor in other.items()} != shapes:
            raise UserError(
                "the models",
                "have weights of different names or shapes",
                cure="Merge models that were trained from the same one",
            )
