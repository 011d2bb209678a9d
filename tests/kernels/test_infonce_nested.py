"""Several prefixes in one pass of the kernels against one plain call per size, in float64."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton")
from embedtrain_kernels import infonce as infonce_launches
from embedtrain_kernels.configurations import Tile
from objective_toys import random_outputs

from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.kl_distillation import KLDistillation
from embedtrain.objectives.matryoshka import Matryoshka
from embedtrain.ops.infonce import fused_nested
from embedtrain.ops.infonce.loss import InfoNCEOptions, infonce
from embedtrain.ops.infonce.nested import Sizes, infonce_nested
from embedtrain.ops.infonce.problem import make_problem

SIZES = Sizes((16, 48, 80), (0.25, 0.5, 1.5))


def example(device, positives=2, queries=19, documents=45, dim=80):
    generator = torch.Generator().manual_seed(positives)

    def draw(*size):
        return F.normalize(torch.randn(*size, generator=generator), dim=1).to(device)

    columns = torch.rand(queries, documents, generator=generator).argsort(1)[:, :positives]
    columns[::3, 1:] = -1
    ids = torch.randint(0, documents, (documents,), generator=generator) + 2**40
    known = ids[torch.randint(0, documents, (queries, 2), generator=generator)]
    rest = {"positives": columns, "document_ids": ids, "known_positives": known}
    inputs = {"query": draw(queries, dim), "document": draw(documents, dim) + 0.1}
    return inputs | {name: value.to(device) for name, value in rest.items()}


def leaves(inputs, dtype):
    values = dict(inputs)
    found = [
        values.pop(name).to(dtype, copy=True).requires_grad_() for name in ("query", "document")
    ]
    temperature = torch.tensor(0.1, dtype=torch.promote_types(dtype, torch.float32))
    temperature = temperature.to(found[0].device).requires_grad_()
    return [*found, temperature], values


def separately(inputs, options, sizes, dtype, *, normalize):
    (query, document, temperature), rest = leaves(inputs, dtype)
    outputs = []
    for dim in sizes.dims:
        cut = [vectors[:, :dim] for vectors in (query, document)]
        if normalize and dim < query.shape[1]:
            cut = [F.normalize(vectors, dim=1) for vectors in cut]
        positives, others = rest["positives"], {k: rest[k] for k in rest if k != "positives"}
        arguments = (*cut, positives, temperature)
        outputs.append(infonce(*arguments, **others, options=options, backend="reference"))
    loss = sum(w * output.loss for w, output in zip(sizes.weights, outputs, strict=True))
    figures = [value for output in outputs for value in output]
    return [loss, *figures, *torch.autograd.grad(loss, (query, document, temperature))]


def together(inputs, options, sizes, dtype, *, normalize):
    found, rest = leaves(inputs, dtype)
    rest = {**rest, "options": options}
    problem = make_problem(found[0], found[1], rest.pop("positives"), found[2], **rest)
    assert fused_nested.unsupported_nested(problem, sizes) == ""
    output = infonce_nested(problem, sizes, normalize=normalize, compute=fused_nested.compute_fused)
    figures = [value for each in output.outputs for value in each]
    return [output.loss, *figures, *torch.autograd.grad(output.loss, found)]


def assert_equal(inputs, options, sizes=SIZES, dtype=torch.float32, *, normalize=True, eps=2e-6):
    rounded = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in inputs.items()
    }
    truth = separately(rounded, options, sizes, torch.float64, normalize=normalize)
    earned = separately(rounded, options, sizes, torch.float32, normalize=normalize)
    found = together(rounded, options, sizes, dtype, normalize=normalize)
    for exact, reference, value in zip(truth, earned, found, strict=True):
        allowed = (reference - exact).abs().max() + eps * exact.abs().max() + 1e-7
        assert (value.double() - exact).abs().max() <= allowed


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("several", ["average", "any", "decoupled"])
def test_one_pass_equals_one_call_per_size(device, several, normalize):
    options = InfoNCEOptions(several_positives=several)
    assert_equal(example(device), options, normalize=normalize)


def test_a_margin_on_positives_is_divided_by_the_temperature_too(device):
    assert_equal(example(device), InfoNCEOptions(positive_margin=0.3))


def test_sizes_may_end_before_the_vectors_do(device):
    assert_equal(example(device), InfoNCEOptions(), Sizes((16, 64), (1.0, 2.0)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_embeddings_lose_only_the_rounding_of_slopes(device, dtype):
    eps = 1.2e-2 if dtype == torch.bfloat16 else 2e-3  # slopes are rounded, summed and rounded
    assert_equal(example(device), InfoNCEOptions(), dtype=dtype, eps=eps)


def test_panels_of_rows_give_the_same_gradients(device, guard, monkeypatch):
    inputs = example(device, queries=70)
    expected = together(inputs, InfoNCEOptions(), SIZES, torch.float32, normalize=True)
    monkeypatch.setattr("embedtrain_kernels.infonce.SLOPE_BYTES", 1)
    monkeypatch.setattr("embedtrain_kernels.infonce.PANEL_BLOCKS", 1)
    monkeypatch.setattr(
        "embedtrain.ops.infonce.fused_nested.kernel_tile",
        lambda problem, candidates, nested: Tile(32, 32, 16, 4, 1),
    )
    found = together(inputs, InfoNCEOptions(), SIZES, torch.float32, normalize=True)
    for first, second in zip(expected, found, strict=True):
        assert torch.allclose(first, second, rtol=1e-5, atol=1e-6)


def test_without_a_wanted_gradient_only_losses_are_computed(device):
    inputs = example(device)
    with torch.no_grad():
        problem = make_problem(inputs["query"], inputs["document"], inputs["positives"], 0.1)
        found = infonce_nested(problem, SIZES, normalize=True, compute=fused_nested.compute_fused)
    assert not found.loss.requires_grad


def test_what_the_kernels_lack_is_said(device):
    inputs, owners = example(device), torch.zeros(45, dtype=torch.int64, device=device)
    arguments = (inputs["query"], inputs["document"], inputs["positives"], 0.1)
    others = make_problem(*arguments, owners=owners, options=InfoNCEOptions(negatives="others"))
    assert "negatives of others" in fused_nested.unsupported_nested(others, SIZES)
    plain, odd = make_problem(*arguments), Sizes((20, 80), (1.0, 1.0))
    assert "multiple of 16" in fused_nested.unsupported_nested(plain, odd)


def outputs():
    """A batch of the toys, its embeddings wide enough for the kernels and in their type."""
    found = random_outputs()
    generator = torch.Generator().manual_seed(3)
    query, document = (
        F.normalize(torch.randn(len(side), 48, generator=generator), dim=1).requires_grad_()
        for side in (found.query, found.document)
    )
    return replace(found, query=query, document=document)


def losses(objective, batch):
    found = objective(batch)
    return found.loss, *torch.autograd.grad(found.loss, (batch.query, batch.document))


OBJECTIVES = {
    "matryoshka": (1, lambda backend: Matryoshka(inner=InfoNCE(backend=backend), dims=(16, 32))),
    "matryoshka with hardness": (
        3,
        lambda backend: Matryoshka(inner=InfoNCE(backend=backend, hardness=1.0), dims=(16, 32)),
    ),
    "soft targets": (1, lambda backend: KLDistillation(candidates="batch", backend=backend)),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_reach_the_kernels(device, name, monkeypatch):
    if device.type == "cuda":
        pytest.skip("the toys live on the CPU")
    passes, objective = OBJECTIVES[name]
    calls, launch = [], infonce_launches._forward_panel

    def counted(*arguments, **options):
        calls.append(launch)
        return launch(*arguments, **options)

    monkeypatch.setattr(infonce_launches, "_forward_panel", counted)
    expected = losses(objective("reference"), outputs())
    assert not calls
    fused = losses(objective("fused"), outputs())
    assert len(calls) == passes
    monkeypatch.setattr("embedtrain.ops.contrast.choose_backend", lambda *_: "fused")
    monkeypatch.setattr("embedtrain.ops.infonce.loss.choose_backend", lambda *_: "fused")
    chosen = losses(objective("auto"), outputs())
    assert len(calls) == 2 * passes
    for found in (fused, chosen):
        for first, second in zip(expected, found, strict=True):
            assert torch.allclose(first, second, rtol=1e-4, atol=1e-5)
