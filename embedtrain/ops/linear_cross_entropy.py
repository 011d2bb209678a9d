"""Cross-entropy over a vocabulary, from hidden states and the output matrix, without the logits.

The heads of masked language models (RetroMAE, DupMAE, MLM) spend their memory on ``tokens x vocabulary``
logits, mostly for tokens that carry no label. Here unlabelled rows are dropped before the first GEMM, and
the rest is done in tiles that hold ``rows x vocabulary`` for a few rows.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from embedtrain.ops.backend import Backend, no_fused_kernel
from embedtrain.ops.exponentials import exponentiate
from embedtrain.ops.maxsim.token_maximum import accumulation_dtype

Reduction = Literal["mean", "sum"]

CPU_TILE = 2**23
"""Logits held at once on a CPU: 32 MiB of float32, some 270 rows of a BERT vocabulary."""

CUDA_TILE = 2**26
"""Logits held at once elsewhere: 256 MiB of float32."""


def linear_cross_entropy(  # every option is defined here, once: longer than 40 lines
    hidden: Float[Tensor, "tokens dim"],
    weight: Float[Tensor, "vocabulary dim"],
    labels: Int64[Tensor, " tokens"],
    bias: Float[Tensor, " vocabulary"] | None = None,
    *,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    row_weights: Float[Tensor, " tokens"] | None = None,
    backend: Backend = "auto",
) -> Float[Tensor, ""]:
    r"""Cross-entropy of ``softmax(hidden @ weight.T + bias)`` with the labels.

    $$\mathcal{L} = \frac{\sum_t a_t \left[ \log \sum_v e^{z_{tv}} - (1 - \epsilon) z_{t y_t}
    - \frac{\epsilon}{V} \sum_v z_{tv} \right]}{\sum_t a_t}, \quad z = h W^\top + b$$

    over the rows whose label is not ``ignore_index``; ``sum`` leaves out the division. Without any labelled
    row (or with weights that add up to 0) the loss is 0 with zero gradients, not NaN as in
    ``F.cross_entropy``, because a batch in which nothing was masked must not spoil the training.

    ``chunked`` (what ``auto`` chooses) computes the loss and the gradients together in 3 GEMMs, and in 1
    when no gradient is wanted; memory beyond inputs and gradients is one tile. It accumulates in float32
    (float64 for float64 inputs), also under autocast. It cannot be differentiated twice.

    Args:
        hidden: One row for each token.
        weight: The output matrix, often the input embeddings.
        labels: The vocabulary entry of each token, or ``ignore_index``.
        bias: Added to the logits.
        ignore_index: The label of tokens that do not count.
        reduction: ``mean`` (weighted, over labelled rows) or ``sum``.
        label_smoothing: The share of the target that is spread evenly over the vocabulary.
        row_weights: The factor ``a`` of each row, a constant without a gradient; 1 where not given.
        backend: How to compute it.
    """
    if backend == "fused":
        raise no_fused_kernel("linear_cross_entropy")
    weights = None if row_weights is None else row_weights.detach()
    with torch.autocast(hidden.device.type, enabled=False):
        if backend == "reference":
            options = (ignore_index, reduction, label_smoothing, weights)
            return linear_cross_entropy_reference(hidden, weight, labels, bias, *options)
        labelled = (labels != ignore_index).nonzero().squeeze(1)
        if len(labelled) < len(labels):
            hidden, labels = hidden[labelled], labels[labelled]
            weights = None if weights is None else weights[labelled]
        factors = _row_factors(hidden, weight, weights, reduction)
        parameters = (hidden, weight) if bias is None else (hidden, weight, bias)
        wanted = torch.is_grad_enabled() and any(p.requires_grad for p in parameters)
        loss: Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden, weight, bias, labels, factors, label_smoothing, wanted
        )
        return loss


def linear_cross_entropy_reference(
    hidden: Float[Tensor, "tokens dim"],
    weight: Float[Tensor, "vocabulary dim"],
    labels: Int64[Tensor, " tokens"],
    bias: Float[Tensor, " vocabulary"] | None,
    ignore_index: int,
    reduction: Reduction,
    label_smoothing: float,
    row_weights: Float[Tensor, " tokens"] | None,
) -> Float[Tensor, ""]:
    """Compute :func:`linear_cross_entropy` in plain torch; this defines it."""
    dtype = accumulation_dtype(hidden, weight)
    logits = F.linear(hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
    losses = F.cross_entropy(
        logits,
        labels,
        ignore_index=ignore_index,
        reduction="none",
        label_smoothing=label_smoothing,
    )
    factors = (labels != ignore_index).to(dtype)
    factors = factors if row_weights is None else factors * row_weights.to(dtype)
    total = (losses * factors).sum()
    if reduction == "sum":
        return total
    return total / factors.sum().where(factors.sum() != 0, 1)


def _row_factors(
    hidden: Tensor, weight: Tensor, row_weights: Tensor | None, reduction: Reduction
) -> Tensor:
    """What each labelled row's loss is multiplied by before the sum."""
    factors = hidden.new_ones(len(hidden), dtype=accumulation_dtype(hidden, weight))
    if row_weights is not None:
        factors = row_weights.to(factors.dtype)
    if reduction == "sum":
        return factors
    total = factors.sum()
    return factors / total.where(total != 0, 1)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch documents no type
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        factors: Tensor,
        label_smoothing: float,
        wanted: bool,
    ) -> Tensor:
        dtype = factors.dtype
        matrix, offset = weight.to(dtype), None if bias is None else bias.to(dtype)
        inputs = zip((hidden, weight, bias), ctx.needs_input_grad, strict=False)
        gradients = _Gradients(
            *(
                torch.zeros_like(x, dtype=dtype) if x is not None and needed and wanted else None
                for x, needed in inputs
            )
        )
        tile = CPU_TILE if hidden.device.type == "cpu" else CUDA_TILE
        size = min(len(hidden), max(1, tile // len(weight)))
        buffer = hidden.new_empty(size, len(weight), dtype=dtype)
        loss = factors.new_zeros(())
        for begin in range(0, len(hidden), max(1, size)):
            block = slice(begin, min(begin + size, len(hidden)))
            rows = hidden[block].to(dtype)
            logits = buffer[: len(rows)]
            if offset is None:
                torch.mm(rows, matrix.T, out=logits)
            else:
                torch.addmm(offset, rows, matrix.T, out=logits)
            losses, normaliser = _losses_and_residuals(logits, labels[block], label_smoothing)
            loss += losses @ factors[block]
            if wanted:
                gradients.add(block, logits, rows, matrix, factors[block] / normaliser)
        ctx.dtypes = hidden.dtype, weight.dtype, None if bias is None else bias.dtype
        ctx.save_for_backward(gradients.hidden, gradients.weight, gradients.bias)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        saved = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        scaled = [None if g is None else (g * gradient).to(dtype) for g, dtype in saved]
        return (*scaled, None, None, None, None)


@dataclass(frozen=True)
class _Gradients:
    """The gradients of the loss, filled tile by tile; None where nobody wants one."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    def add(
        self, block: slice, residuals: Tensor, rows: Tensor, matrix: Tensor, scale: Tensor
    ) -> None:
        """Add a tile's part; ``scale`` is applied to the thin operands, never to the wide tile."""
        if self.hidden is not None:
            torch.mm(residuals, matrix, out=self.hidden[block])
            self.hidden[block] *= scale[:, None]
        if self.weight is not None:
            scaled = rows * scale[:, None]
            torch.addmm(self.weight, residuals.T, scaled, out=self.weight)
        if self.bias is not None:
            torch.addmv(self.bias, residuals.T, scale, out=self.bias)


def _losses_and_residuals(
    logits: Tensor, labels: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """Return each row's loss and normaliser ``Z``; turn ``logits`` into ``Z * (softmax - target)``.

    The target is subtracted here, in the accumulation dtype: rounding ``p - 1`` later would lose it.
    """
    label_logits = logits.gather(1, labels[:, None]).squeeze(1)
    expected = (1 - label_smoothing) * label_logits
    if label_smoothing:
        expected += label_smoothing * logits.mean(1)
    largest, normaliser = exponentiate(logits)
    losses = largest + normaliser.log() - expected
    logits.scatter_add_(1, labels[:, None], (label_smoothing - 1) * normaliser[:, None])
    if label_smoothing:
        logits.sub_((label_smoothing / logits.shape[1]) * normaliser[:, None])
    return losses, normaliser
