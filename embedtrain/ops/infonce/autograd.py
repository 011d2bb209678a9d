"""How a loss that computes its own gradients meets autograd."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from embedtrain.ops.infonce.blocks import Gradients
from embedtrain.ops.infonce.problem import InfoNCEOutput, InfoNCEProblem


class Wanted(NamedTuple):
    """Which inputs receive a gradient; work for others is left out."""

    query: bool
    document: bool
    all_query: bool
    temperature: bool


EMBEDDINGS = ("query", "document", "all_query")

Compute = Callable[[InfoNCEProblem, Wanted], tuple[InfoNCEOutput, Gradients | None]]


def empty_gradients(problem: InfoNCEProblem, wanted: Wanted) -> Gradients | None:
    """Return zeros to add gradients to; nothing where none is wanted."""
    if not any(wanted):
        return None
    zeros = [
        torch.zeros_like(tensor, dtype=problem.dtype) if want else None
        for tensor, want in zip(
            (problem.query, problem.document, problem.all_query, problem.temperature),
            wanted,
            strict=True,
        )
    ]
    gradients = Gradients(*zeros)
    shared = problem.all_query is problem.query
    return replace(gradients, all_query=gradients.query) if shared else gradients


def with_gradients(problem: InfoNCEProblem, compute: Compute) -> InfoNCEOutput:
    """Run ``compute`` and hand its gradients to autograd when the backward pass comes."""
    shared = problem.all_query is problem.query
    inputs = (
        problem.query,
        problem.document,
        None if shared else problem.all_query,
        problem.temperature,
    )
    wanted = Wanted(
        *(torch.is_grad_enabled() and i is not None and i.requires_grad for i in inputs)
    )
    return InfoNCEOutput(*_WithGradients.apply(*inputs, problem.detached(), wanted, compute))  # type: ignore[no-untyped-call]


class _WithGradients(torch.autograd.Function):
    """Holds the gradients from the forward pass until the backward pass asks for them."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch documents no type
        query: Tensor,
        document: Tensor,
        all_query: Tensor | None,
        temperature: Tensor,
        problem: InfoNCEProblem,
        wanted: Wanted,
        compute: Compute,
    ) -> tuple[Tensor, ...]:
        output, ctx.gradients = compute(problem, wanted)
        ctx.save_for_backward(query, document, all_query, temperature)
        # Kept in the context, the embeddings would outlive this backward pass.
        names = {field.name for field in fields(problem)} - set(EMBEDDINGS)
        ctx.known = {name: getattr(problem, name) for name in names}
        ctx.wanted, ctx.compute = wanted, compute
        ctx.mark_non_differentiable(*output[1:])
        return tuple(output)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401
        by_loss: Tensor,
        *_: Tensor,
    ) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors  # refuses a second backward pass unless the graph was retained
        gradients = ctx.gradients
        if gradients is None:
            query, document = inputs[0].detach(), inputs[1].detach()
            everyone = query if inputs[2] is None else inputs[2].detach()
            known = ctx.known | dict(zip(EMBEDDINGS, (query, document, everyone), strict=True))
            _, gradients = ctx.compute(InfoNCEProblem(**known), ctx.wanted)
        ctx.gradients = None
        results = [
            getattr(gradients, field.name).mul_(by_loss).to(tensor.dtype) if wanted else None
            for field, tensor, wanted in zip(fields(Gradients), inputs, ctx.wanted, strict=True)
        ]
        return (*results, None, None, None)
