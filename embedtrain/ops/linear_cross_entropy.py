"""Cross-entropy over a vocabulary, from hidden states and the output matrix, without the logits.

The heads of masked language models (RetroMAE, DupMAE, MLM) spend their memory on ``tokens x vocabulary``
logits, mostly for tokens that carry no label. Here unlabelled rows are dropped before the first GEMM, and
the rest is done in tiles that hold ``rows x vocabulary`` for a few rows.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from embedtrain.ops.exponentials import exponentiate
from embedtrain.ops.maxsim.token_maximum import accumulation_dtype
from embedtrain.ops.products import add_product, as_fine_as, multiplies_half, multiply_into

UNLABELLED = -100
"""The label of a row that does not count, as in ``F.cross_entropy``."""

CPU_TILE = 2**23
"""Logits held at once on a CPU: 32 MiB of float32, some 270 rows of a BERT vocabulary."""

CUDA_TILE = 2**26
"""Logits held at once elsewhere: 256 MiB of float32."""


def linear_cross_entropy(
    hidden: Float[Tensor, "tokens dim"],
    weight: Float[Tensor, "vocabulary dim"],
    labels: Int64[Tensor, " tokens"],
    bias: Float[Tensor, " vocabulary"] | None = None,
    *,
    num_labelled: int | None = None,
) -> Float[Tensor, ""]:
    r"""Mean cross-entropy of ``softmax(hidden @ weight.T + bias)`` with the labels.

    $$\mathcal{L} = \frac{1}{n} \sum_t \left[ \log \sum_v e^{z_{tv}} - z_{t y_t} \right], \quad z = h W^\top + b$$

    over the n rows whose label is not -100. Without any labelled row the loss is 0 with zero gradients, not
    NaN as in ``F.cross_entropy``, because a batch in which nothing was masked must not spoil the training.

    Computes the loss and the gradients together in 3 GEMMs, and in 1 when no gradient is wanted; memory
    beyond inputs and gradients is one tile. It accumulates in float32 (float64 for float64 inputs), also
    under autocast. It cannot be differentiated twice.

    Args:
        hidden: States of tokens.
        weight: The output matrix.
        labels: Vocabulary entries, -100 for none.
        bias: Added to the logits.
        num_labelled: How many rows have a label, for callers who know: a device need not be asked then.
    """
    if num_labelled is None:
        num_labelled = int((labels != UNLABELLED).sum())
    if num_labelled < len(labels):
        labelled = (labels == UNLABELLED).byte().argsort(stable=True)[:num_labelled]
        hidden, labels = hidden[labelled], labels[labelled]
    parameters = (hidden, weight) if bias is None else (hidden, weight, bias)
    wanted = torch.is_grad_enabled() and any(p.requires_grad for p in parameters)
    with torch.autocast(hidden.device.type, enabled=False):
        loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, bias, labels, wanted)  # type: ignore[no-untyped-call]
    return loss


def linear_cross_entropy_reference(
    hidden: Float[Tensor, "tokens dim"],
    weight: Float[Tensor, "vocabulary dim"],
    labels: Int64[Tensor, " tokens"],
    bias: Float[Tensor, " vocabulary"] | None = None,
) -> Float[Tensor, ""]:
    """Compute :func:`linear_cross_entropy` in plain torch; this defines it."""
    dtype = accumulation_dtype(hidden, weight)
    logits = F.linear(hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
    total = F.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum")
    return total / (labels != UNLABELLED).sum().clamp_min(1)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch documents no type
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        wanted: bool,
    ) -> Tensor:
        dtype, share = accumulation_dtype(hidden, weight), 1 / max(len(hidden), 1)
        # As autocast would: states of 16 bits meet a matrix rounded to as many.
        half = hidden.dtype == torch.bfloat16 and multiplies_half(hidden.device)
        operands = torch.bfloat16 if half else dtype
        matrix, offset = weight.to(operands), None if bias is None else bias.to(dtype)
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
        loss = hidden.new_zeros((), dtype=dtype)
        for begin in range(0, len(hidden), max(1, size)):
            block = slice(begin, min(begin + size, len(hidden)))
            rows = hidden[block].to(operands)
            logits = buffer[: len(rows)]
            with as_fine_as(hidden.dtype, hidden.device):
                _fill(logits, rows, matrix, offset)
                losses, normaliser = _losses_and_residuals(logits, labels[block])
                loss += losses.sum() * share
                if wanted:
                    gradients.add(block, logits, rows, matrix, share / normaliser)
        ctx.dtypes = hidden.dtype, weight.dtype, None if bias is None else bias.dtype
        ctx.save_for_backward(gradients.hidden, gradients.weight, gradients.bias)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        saved = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        scaled = [None if g is None else (g * gradient).to(dtype) for g, dtype in saved]
        return (*scaled, None, None)


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
        factors = residuals.to(rows.dtype)
        if self.hidden is not None:
            multiply_into(self.hidden[block], factors, matrix)
            self.hidden[block] *= scale[:, None]
        if self.weight is not None:
            scaled = (rows * scale[:, None]).to(rows.dtype)
            add_product(self.weight, factors.T, scaled)
        if self.bias is not None:
            torch.addmv(self.bias, residuals.T, scale, out=self.bias)


def _fill(logits: Tensor, rows: Tensor, matrix: Tensor, offset: Tensor | None) -> None:
    """Write the logits of a tile."""
    if offset is not None and rows.dtype == logits.dtype:
        torch.addmm(offset, rows, matrix.T, out=logits)
        return
    multiply_into(logits, rows, matrix.T)
    if offset is not None:
        logits.add_(offset)


def _losses_and_residuals(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row's loss and normaliser ``Z``; turn ``logits`` into ``Z * (softmax - target)``.

    The target is subtracted here, in the accumulation dtype: rounding ``p - 1`` later would lose it.
    """
    expected = logits.gather(1, labels[:, None]).squeeze(1)
    largest, normaliser = exponentiate(logits)
    losses = largest + normaliser.log() - expected
    logits.scatter_add_(1, labels[:, None], -normaliser[:, None])
    return losses, normaliser
