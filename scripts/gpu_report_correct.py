"""Stage ``correct``: every operation in every form against float64, over ragged shapes.

A form may be as far from float64 as the plain definition in the same numbers is, and a little more.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from gpu_report_setting import Row, Setting, attempt, supported
from torch import Tensor

from embedtrain.ops.infonce.loss import infonce
from embedtrain.ops.linear_cross_entropy import (
    linear_cross_entropy,
    linear_cross_entropy_reference,
)
from embedtrain.ops.maxsim.scores import maxsim
from embedtrain.types import TokenEmbeddings

SHAPES = ((200, 333, 128), (129, 64, 256), (512, 512, 384), (96, 700, 768))
"""Queries, documents, dimension."""
TINY = ((24, 40, 64),)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BACKENDS = ("chunked", "fused")
SLACK = {"fp32": 1e-5, "bf16": 2e-3, "fp16": 5e-4}
"""Relative error that is allowed beside that of the definition in the same numbers."""
TEMPERATURE = 0.05
Loss = Callable[[list[Tensor], str], Tensor]


def rows(setting: Setting) -> Iterator[Row]:
    """Yield one row for each operation, form, type and shape."""
    for shape in TINY if setting.tiny else SHAPES:
        for operation, make in OPERATIONS.items():
            for dtype in DTYPES:
                if setting.tiny and dtype == "fp16":
                    continue
                for backend in BACKENDS if operation != "linear cross-entropy" else ("chunked",):
                    row = {"operation": operation, "form": backend, "type": dtype, "shape": str(shape)}  # fmt: skip
                    cell = partial(_errors, setting, make, backend, dtype, shape)
                    yield attempt(row, partial(supported, cell))


def _errors(
    setting: Setting, make: Callable[..., tuple[list[Tensor], Loss]], backend: str, dtype: str, shape: tuple[int, ...]
) -> Row:  # fmt: skip
    inputs, loss = make(setting.device, *shape)
    rounded = [one.to(DTYPES[dtype]) for one in inputs]
    exact = _run(loss, [one.double() for one in rounded], "reference")
    plain = _distance(exact, _run(loss, rounded, "reference"))
    found = _distance(exact, _run(loss, rounded, backend))
    holds = all(ours <= theirs + SLACK[dtype] for ours, theirs in zip(found, plain, strict=True))
    return {
        "loss_error": f"{found[0]:.1e}",
        "gradient_error": f"{max(found[1:]):.1e}",
        "plain_gradient_error": f"{max(plain[1:]):.1e}",
        "holds": holds,
    }


def _run(loss: Loss, values: list[Tensor], backend: str) -> list[Tensor]:
    """Return the loss and all gradients, in float64."""
    inputs = [one.detach().clone().requires_grad_() for one in values]
    value = loss(inputs, backend)
    gradients = torch.autograd.grad(value, inputs)
    return [value.detach().double(), *(one.double() for one in gradients)]


def _distance(exact: list[Tensor], found: list[Tensor]) -> list[float]:
    pairs = zip(exact, found, strict=True)
    return [float((a - b).norm() / a.norm().clamp_min(1e-30)) for a, b in pairs]


def _unit(rows: int, dim: int, device: torch.device) -> Tensor:
    return F.normalize(torch.randn(rows, dim, device=device), dim=1)


def _infonce(device: torch.device, queries: int, documents: int, dim: int) -> tuple[list[Tensor], Loss]:  # fmt: skip
    torch.manual_seed(0)
    positives = torch.randint(documents, (queries, 1), device=device)
    ids = torch.arange(documents, device=device)

    def loss(values: list[Tensor], backend: str) -> Tensor:
        return infonce(*values, positives, TEMPERATURE, document_ids=ids, backend=backend).loss

    return [_unit(queries, dim, device), _unit(documents, dim, device)], loss


def _maxsim(device: torch.device, queries: int, documents: int, dim: int) -> tuple[list[Tensor], Loss]:  # fmt: skip
    torch.manual_seed(0)
    texts = max(2, queries // 16), max(2, documents // 16)
    lengths = [torch.randint(1, 32, (count,), device=device) for count in texts]
    tokens = [_unit(int(one.sum()), min(dim, 128), device) for one in lengths]

    def loss(values: list[Tensor], backend: str) -> Tensor:
        query, document = (
            TokenEmbeddings(value, length) for value, length in zip(values, lengths, strict=True)
        )
        scores = maxsim(query, document, backend=backend)
        return scores.square().mean()

    return tokens, loss


def _linear(device: torch.device, queries: int, documents: int, dim: int) -> tuple[list[Tensor], Loss]:  # fmt: skip
    torch.manual_seed(0)
    labels = torch.randint(documents, (queries,), device=device)
    labels[::3] = -100

    def loss(values: list[Tensor], backend: str) -> Tensor:
        by = linear_cross_entropy_reference if backend == "reference" else linear_cross_entropy
        return by(values[0], values[1], labels)

    return [torch.randn(queries, dim, device=device), _unit(documents, dim, device)], loss


OPERATIONS = {"InfoNCE": _infonce, "MaxSim": _maxsim, "linear cross-entropy": _linear}
