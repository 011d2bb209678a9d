"""The part of InfoNCE that needs no score matrix: a query's loss from its sums, and the figures."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from embedtrain.ops.infonce.problem import InfoNCEOptions, InfoNCEOutput


class RowSums(NamedTuple):
    """What the loss of a query depends on; directions are query-to-document first, then the rest."""

    negatives: Float[Tensor, "rows directions"]
    """Log of the sum of the exponentials of the negatives' logits, -inf for none."""
    positives: Float[Tensor, "rows positives"]
    """Similarities of the positives, not divided by the temperature; any number where unused."""
    temperature: Float[Tensor, " rows"]
    logits: Float[Tensor, "rows directions"]
    """Sum of the negatives' logits; read only for label smoothing."""


class Softmax(NamedTuple):
    """One denominator: its negatives, the positives, and the positive again where it stands twice."""

    negatives: Float[Tensor, "rows directions"]
    positives: Float[Tensor, "rows positives"]
    again: Float[Tensor, "rows again"]
    logits: Float[Tensor, "rows directions"]
    counts: Float[Tensor, "rows directions"]


class RowFigures(NamedTuple):
    """Per-query facts of the query-to-document direction, from which the log's figures follow."""

    best: Float[Tensor, " queries"]
    """Similarity of the best positive."""
    hardest: Float[Tensor, " queries"]
    """Logit of the hardest negative times the temperature, -inf for none."""
    eligible: Int64[Tensor, " queries"]
    """Number of candidates that are not positives."""
    known: Int64[Tensor, " queries"]
    """How many of them their ids excluded."""
    suspected: Int64[Tensor, " queries"]
    """How many of them the margin excluded."""


def row_losses(
    sums: RowSums,
    counts: Float[Tensor, "rows directions"],
    used: Bool[Tensor, "rows positives"],
    options: InfoNCEOptions,
) -> Float[Tensor, " rows"]:
    """Put positives and directions together as :func:`embedtrain.ops.infonce.loss.infonce` defines.

    ``counts`` is the number of negatives per direction, read only for label smoothing.
    """
    positives = (sums.positives - options.positive_margin) / sums.temperature[:, None]
    positives = positives.masked_fill(~used, -torch.inf)
    symmetric = "document_to_query" in options.directions
    first, nothing = positives[:, :1], positives[:, :0]
    negatives, logits = sums.negatives, sums.logits
    if options.partition == "joint":
        again = first if symmetric else nothing
        softmaxes = [Softmax(negatives, positives, again, logits, counts)]
    else:
        softmaxes = [
            Softmax(negatives[:, k, None], side, nothing, logits[:, k, None], counts[:, k, None])
            for k, side in enumerate([positives, first] if symmetric else [positives])
        ]
    return torch.stack([_loss(softmax, options) for softmax in softmaxes]).mean(0)


def _loss(softmax: Softmax, options: InfoNCEOptions) -> Float[Tensor, " rows"]:
    used = softmax.positives.isfinite()
    if options.several_positives != "decoupled":
        return _competing(softmax, options)
    losses = []
    for column in softmax.positives.T:
        alone = column.where(column.isfinite(), 0.0)[:, None]
        twice = alone[:, : softmax.again.shape[1]]
        losses.append(_competing(softmax._replace(positives=alone, again=twice), options))
    return (torch.stack(losses, 1) * used).sum(1) / used.sum(1)


def _competing(softmax: Softmax, options: InfoNCEOptions) -> Float[Tensor, " rows"]:
    """Loss where all positives stand in the denominator."""
    positives, smoothing = softmax.positives, options.label_smoothing
    used = positives.isfinite()
    log_partition = torch.cat([softmax.negatives, positives, softmax.again], 1).logsumexp(1)
    total, number = positives.where(used, 0.0).sum(1), used.sum(1)
    target = positives.logsumexp(1) if options.several_positives == "any" else total / number
    if smoothing == 0.0:
        return log_partition - target
    total = total + softmax.again.sum(1) + softmax.logits.sum(1)
    number = number + softmax.again.shape[1] + softmax.counts.sum(1)
    return log_partition - (1 - smoothing) * target - smoothing * total / number


def weigh_rows(
    sums: RowSums,
    counts: Float[Tensor, "rows directions"],
    used: Bool[Tensor, "rows positives"],
    share: float,
    options: InfoNCEOptions,
    *,
    wanted: bool,
) -> tuple[Float[Tensor, ""], RowSums | None]:
    """Return ``share`` times the sum of the losses and, where wanted, its derivative by each field of ``sums``."""
    if not wanted:
        return row_losses(sums, counts, used, options).sum() * share, None
    with torch.enable_grad():
        leaves = RowSums(*(tensor.detach().requires_grad_() for tensor in sums))
        loss = row_losses(leaves, counts, used, options).sum() * share
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return loss.detach(), RowSums(*gradients)


def summarise(loss: Float[Tensor, ""], figures: RowFigures) -> InfoNCEOutput:
    """Average the figures over queries; see :class:`InfoNCEOutput`."""
    gap = figures.best - figures.hardest
    has_negative = figures.hardest.isfinite()
    number = has_negative.sum().clamp_min(1)
    eligible = figures.eligible.sum().clamp_min(1)
    return InfoNCEOutput(
        loss=loss,
        accuracy=(gap > 0).to(gap.dtype).mean(),
        margin=gap.where(has_negative, 0.0).sum() / number,
        masked_ratio=(figures.known.sum() / eligible).to(gap.dtype),
        suspected_ratio=(figures.suspected.sum() / eligible).to(gap.dtype),
    )
