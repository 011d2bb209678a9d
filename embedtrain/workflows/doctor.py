"""Workflow: does this machine compute the gradients of this recipe exactly?"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn

from embedtrain.data.batches import BatchBuilder
from embedtrain.data.mixture import Draw
from embedtrain.models.build import build_model
from embedtrain.models.chunking import Execution
from embedtrain.models.compiling import compile_layers
from embedtrain.models.text_model import TextModel
from embedtrain.objectives.base import Objective
from embedtrain.progress import console
from embedtrain.recipe.retrieval import Recipe
from embedtrain.training.activations import keep_one_activation_per_layer
from embedtrain.training.guide import BOTH, Guide, encode_guide
from embedtrain.types import RetrievalBatch
from embedtrain.workflows.prepare import cache_of, check_batch_size, prepare_sources, with_machine

ROWS = 64
BOUNDS = {"fp32": 1.0e-4, "bf16": 5.0e-2}
"""Largest relative error of a parameter group's gradient, by precision. Rounding alone stays below; a
wrong factor, a lost term or logits in bf16 do not."""

Gradients = dict[str, torch.Tensor]


@dataclass(frozen=True)
class GroupError:
    """How far the gradient of a group of parameters is from the plain one."""

    name: str
    relative_error: float
    norm: float


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found."""

    plain_loss: float
    loss: float
    groups: Sequence[GroupError]
    bound: float

    @property
    def healthy(self) -> bool:
        """Whether every group is within the bound; NaN is not."""
        return all(group.relative_error <= self.bound for group in self.groups)


def diagnose(recipe: Recipe) -> Diagnosis:
    """Compare the recipe's gradients with the plain ones on its own first 64 rows.

    Plain means float32, one padded batch, no chunks, no rematerialisation, all scores stored. The recipe's
    way is its chunk size (lowered until there are several chunks), packing, rematerialisation, gradient
    checkpointing, compiled layers, precision and loss backend. Dropout is off in both: it draws other numbers
    for other shapes.
    """
    torch.manual_seed(recipe.trainer.seed)
    model = build_model(recipe.model, recipe.trainer.accelerator)
    recipe = with_machine(recipe, model)
    sources = prepare_sources(recipe.data, model.tokenization)
    rows = min(ROWS, recipe.data.batch_sizes(recipe.trainer.batch_size)[0])
    check_batch_size(sources[:1], [rows])
    builder = BatchBuilder.of(recipe.data, sources)
    batch = builder(Draw(0, 0, torch.arange(rows).numpy()))
    model.eval()
    console.print(f"Comparing gradients on {rows} rows of {sources[0].place}")
    guide = None
    if recipe.guide is not None:
        guide = encode_guide(recipe.guide, recipe.data.sources, cache_of(recipe.data))
    return compare_gradients(model, recipe, batch, guide)


def compare_gradients(
    model: TextModel, recipe: Recipe, batch: RetrievalBatch, guide: Guide | None = None
) -> Diagnosis:
    """Run the plain and the configured path on one batch and compare every group of parameters."""
    trainer, objective = recipe.trainer, recipe.objectives[0]
    total = int(model.texts_of(batch).sizes.sum())
    plain = objective
    if "backend" in type(objective).model_fields:
        plain = objective.model_copy(update={"backend": "reference"})
    with _packing(model, "padded"):
        plain_loss, expected = _gradients(
            model, plain, batch, Execution(10 * total), guide=guide, bf16=False
        )
    wanted = total if trainer.chunk_tokens == "auto" else trainer.chunk_tokens
    chunk = min(wanted, max(1, total // 4))
    configured = Execution(chunk, trainer.rematerialize, recall=not trainer.compile)
    if trainer.gradient_checkpointing:
        keep_one_activation_per_layer(model)
    if trainer.compile:
        compile_layers(model)
    bf16 = trainer.precision == "bf16"
    loss, found = _gradients(model, objective, batch, configured, guide=guide, bf16=bf16)
    return Diagnosis(plain_loss, loss, _compare(expected, found), BOUNDS[trainer.precision])


def _gradients(
    model: TextModel,
    objective: Objective,
    batch: RetrievalBatch,
    execution: Execution,
    *,
    guide: Guide | None,
    bf16: bool,
) -> tuple[float, Gradients]:
    model.zero_grad(set_to_none=True)
    device = model.device
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        outputs = model(batch.to(device), execution)
    if guide is not None:
        outputs = replace(outputs, guide=guide(outputs, BOTH))
    loss = objective(outputs).loss
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    model.zero_grad(set_to_none=True)
    return loss.item(), gradients


def _compare(expected: Gradients, found: Gradients) -> list[GroupError]:
    """Compare group by group: embeddings, each layer, the rest.

    Adding a constant to all keys of a text changes no attention, so a key's bias has a gradient of exactly
    zero and what is computed for it is rounding; grouping weighs it by its size. For the same reason a group
    whose gradient nearly cancels, such as a learned temperature's one number, is measured against a
    hundredth of the whole gradient's norm where its own is smaller.
    """

    def size(tensors: Iterable[torch.Tensor]) -> float:
        return sum(float(value.double().square().sum()) for value in tensors)

    whole = size(expected.values())
    groups: dict[str, list[str]] = {}
    for name in expected.keys() | found.keys():
        groups.setdefault(_group_of(name), []).append(name)
    errors = []
    for group, names in sorted(groups.items(), key=lambda item: _natural(item[0])):
        norm = size(expected[name] for name in names if name in expected)
        error = float("inf")
        if all(name in expected and name in found for name in names):
            error = size(expected[name].double() - found[name].double() for name in names)
        scale = max(norm, 1e-4 * whole) or 1.0
        errors.append(GroupError(group, (error / scale) ** 0.5, norm**0.5))
    return errors


def _group_of(name: str) -> str:
    parts = name.removeprefix("backbone.").split(".")
    number = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    return parts[0] if number is None else ".".join(parts[: number + 1])


def _natural(name: str) -> tuple[str, int]:
    head, _, tail = name.rpartition(".")
    return (head, int(tail)) if tail.isdigit() else (name, -1)


@contextmanager
def _packing(model: TextModel, packing: str) -> Iterator[nn.Module]:
    before = model.packing
    model.packing = packing  # type: ignore[assignment]
    try:
        yield model
    finally:
        model.packing = before
