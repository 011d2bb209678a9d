"""``infonce(backend="fused")`` against the reference in float64; the float32 reference earns the tolerance."""

import pytest
import torch

pytest.importorskip("triton")
from embedtrain_kernels import availability

from embedtrain.errors import UserError
from embedtrain.ops.infonce.fused import dense_ids
from embedtrain.ops.infonce.loss import InfoNCEOptions, infonce

BOTH = ("query_to_document", "document_to_query")
SYMMETRIC = InfoNCEOptions(directions=BOTH, partition="per_direction")


def example(device, *, queries=21, group=2, dim=32, positives=1, seed=0):
    """Queries with groups of documents and ids that occur twice."""
    generator = torch.Generator().manual_seed(seed)
    documents = queries * group
    columns = torch.arange(queries)[:, None] * group + torch.arange(positives)
    columns[::4, 1:] = -1
    ids = torch.randint(0, documents, (documents,), generator=generator) + 2**40
    inputs = {
        "query": torch.randn(queries, dim, generator=generator),
        "document": torch.randn(documents, dim, generator=generator),
        "positives": columns,
        "temperature": torch.tensor(0.1),
        "document_ids": ids,
        "known_positives": ids[torch.randint(0, documents, (queries, 1), generator=generator)],
    }
    for name in ("query", "document"):
        inputs[name] = torch.nn.functional.normalize(inputs[name], dim=1)
        inputs[name] = inputs[name] + 0.5 * (name == "document") * inputs["query"][0]
    return {name: value.to(device) for name, value in inputs.items()}


LEAVES = ("query", "document", "temperature")


def run(inputs, backend, dtype=None, **options):
    values = dict(inputs)
    for name in LEAVES:
        leaf = values[name].detach()
        leaf = leaf.to(dtype) if dtype is not None else leaf
        values[name] = leaf.clone().requires_grad_()
    output = infonce(**values, backend=backend, **options)
    gradients = torch.autograd.grad(output.loss, [values[name] for name in LEAVES])
    return [*output, *gradients]


def assert_as_good_as_reference(inputs, *, eps=2e-6, **options):
    truth = run(inputs, "reference", torch.float64, **options)
    earned = run(inputs, "reference", torch.float32, **options)
    found = run(inputs, "fused", **options)
    for exact, reference, value in zip(truth, earned, found, strict=True):
        scale = exact.abs().max()
        allowed = (reference - exact).abs().max() + eps * scale + 1e-7
        assert (value.double() - exact).abs().max() <= allowed


OPTIONS = {
    "plain": InfoNCEOptions(),
    "margin": InfoNCEOptions(false_negative_margin=-0.05),
    "relative margin": InfoNCEOptions(
        false_negative_margin=0.1, false_negative_margin_kind="relative"
    ),
    "symmetric": SYMMETRIC,
    "joint": InfoNCEOptions(directions=BOTH),
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_every_supported_option_equals_the_reference(device, options):
    assert_as_good_as_reference(example(device), options=options)


@pytest.mark.parametrize("several", ["average", "any", "decoupled"])
@pytest.mark.parametrize("directions", [BOTH[:1], BOTH], ids=["row", "joint"])
def test_two_positives_equal_the_reference(device, several, directions):
    options = InfoNCEOptions(directions=directions, several_positives=several)
    assert_as_good_as_reference(example(device, group=3, positives=2), options=options)


@pytest.mark.parametrize("architecture", [80, 100])
def test_the_tiles_of_other_architectures_give_the_same_numbers(device, monkeypatch, architecture):
    if device.type == "cuda":
        pytest.skip("a device runs the tiles of its own architecture")
    monkeypatch.setattr("embedtrain.ops.infonce.fused.architecture", lambda device: architecture)
    assert_as_good_as_reference(example(device, dim=96), options=SYMMETRIC)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("temperature", [0.05, 0.01])
def test_low_precision_embeddings_lose_only_the_rounding_of_slopes(device, dtype, temperature):
    inputs = example(device, dim=48)
    inputs["temperature"] = torch.tensor(temperature, device=device)
    for name in ("query", "document"):
        inputs[name] = inputs[name].to(dtype)
    assert_as_good_as_reference(inputs, eps=8e-3 if dtype == torch.bfloat16 else 1e-3)


def test_a_good_model_keeps_its_small_gradients_in_bfloat16(device):
    """The softmax of each positive is near 1: rounding it before subtracting 1 would leave nothing."""
    inputs = example(device, group=1)
    inputs["document"] = inputs["query"].bfloat16()
    inputs["query"] = inputs["query"].bfloat16()
    inputs["document_ids"], inputs["known_positives"] = None, None
    inputs["temperature"] = torch.tensor(0.08, device=device)
    assert_as_good_as_reference(inputs, eps=8e-3)


def test_documents_without_ids_and_a_lonely_query(device):
    inputs = example(device, queries=1, group=1)
    inputs["document_ids"], inputs["known_positives"] = None, None
    found = run(inputs, "fused")
    assert found[0].item() == 0.0
    assert all(not gradient.any() for gradient in found[-3:])


def test_without_a_wanted_gradient_only_the_loss_is_computed(device):
    inputs = example(device)
    with torch.no_grad():
        loss = infonce(**inputs, backend="fused").loss
    assert not loss.requires_grad
    assert torch.equal(loss, run(inputs, "fused")[0])


def test_upstream_gradients_scale_all_gradients(device):
    inputs = example(device)
    query = inputs["query"].clone().requires_grad_()
    (4 * infonce(**{**inputs, "query": query}, backend="fused").loss).backward()
    assert torch.equal(query.grad, 4 * run(inputs, "fused")[-3])  # a power of two rounds nothing


def test_gradients_are_the_same_bits_on_every_run(device):
    inputs = example(device)
    for first, second in zip(
        *(run(inputs, "fused", options=SYMMETRIC) for _ in range(2)), strict=True
    ):
        assert torch.equal(first, second)


def test_transposed_embeddings_are_made_contiguous(device):
    inputs = example(device)
    expected = run(inputs, "fused")
    inputs["document"] = inputs["document"].T.contiguous().T
    assert torch.equal(run(inputs, "fused")[-2], expected[-2])


UNSUPPORTED = {
    "own negatives": {"options": InfoNCEOptions(negatives="own")},
    "hardness": {"options": InfoNCEOptions(hardness=1.0)},
    "label smoothing": {"options": InfoNCEOptions(label_smoothing=0.1)},
    "these directions": {"options": InfoNCEOptions(directions=(*BOTH, "query_to_query"))},
    "3 positives and": {"positives": 3},
    "float64": {"dtype": torch.float64},
    "positives and 7 relevant ids": {"known": 6},
    "dim 24": {"dim": 24},
    "dim 528": {"dim": 528},
}


@pytest.mark.parametrize("reason", UNSUPPORTED)
def test_what_the_kernels_lack_is_an_error_that_names_it(device, reason):
    change = dict(UNSUPPORTED[reason])
    shape = {"positives": change.pop("positives", 1), "dim": change.pop("dim", 32)}
    inputs = example(device, group=4, **shape)
    inputs["owners"] = torch.arange(len(inputs["query"]), device=device).repeat_interleave(4)
    known = change.pop("known", 0)
    if known:
        inputs["known_positives"] = torch.arange(known, device=device).expand(
            len(inputs["query"]), -1
        )
    dtype = change.pop("dtype", torch.float32)
    inputs["query"] = inputs["query"].to(dtype)
    inputs["document"] = inputs["document"].to(dtype)
    with pytest.raises(UserError, match=reason):
        infonce(**inputs, backend="fused", **change)


def test_an_unknown_architecture_is_an_error(device, monkeypatch):
    monkeypatch.setattr("embedtrain.ops.infonce.fused.architecture", lambda device: None)
    with pytest.raises(UserError, match="architecture"):
        infonce(**example(device), backend="fused")


def test_without_a_gpu_or_the_interpreter_fused_is_an_error(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert availability.architecture(torch.device("cpu")) is None
    with pytest.raises(UserError, match="device cpu"):
        infonce(**example("cpu"), backend="fused")


def test_dense_ids_agree_exactly_where_ids_agree():
    document_ids = torch.tensor([2**62 + 1, 5, 2**62, -1, 5])
    relevant_ids = torch.tensor([[5, -1], [2**62, 2**62 + 1], [7, 2**62 + 2]])
    documents, relevant = dense_ids(document_ids, relevant_ids)
    agree = (relevant[:, :, None] == documents) & (relevant >= 0)[:, :, None]
    expected = (relevant_ids[:, :, None] == document_ids) & (relevant_ids >= 0)[:, :, None]
    assert torch.equal(agree, expected)
