"""``infonce(backend="fused")`` against the reference in float64; the float32 reference earns the tolerance."""

import pytest
import torch

pytest.importorskip("triton")
from embedtrain_kernels import availability

from embedtrain.errors import UserError
from embedtrain.ops.infonce.fused import unsupported
from embedtrain.ops.infonce.fused_directions import dense_ids
from embedtrain.ops.infonce.loss import InfoNCEOptions, infonce
from embedtrain.ops.infonce.problem import make_problem

BOTH = ("query_to_document", "document_to_query")
ALL = (*BOTH, "query_to_query", "document_to_document")
SYMMETRIC = InfoNCEOptions(directions=BOTH, partition="per_direction")


def example(device, *, queries=21, group=2, dim=32, positives=1, known=1, seed=0):
    """Queries with groups of documents, ids that occur twice, documents without id and equal queries."""
    generator = torch.Generator().manual_seed(seed)
    documents = queries * group
    columns = torch.arange(queries)[:, None] * group + torch.arange(positives)
    columns[::4, 1:] = -1
    ids = torch.randint(0, documents, (documents,), generator=generator) + 2**40
    answers = ids[torch.randint(0, documents, (queries, known), generator=generator)]
    ids[::5] = -1
    inputs = {
        "query": torch.randn(queries, dim, generator=generator),
        "document": torch.randn(documents, dim, generator=generator),
        "positives": columns,
        "temperature": torch.tensor(0.1),
        "document_ids": ids,
        "query_ids": torch.randint(0, queries, (queries,), generator=generator) + 2**41,
        "known_positives": answers,
        "owners": torch.arange(queries).repeat_interleave(group),
    }
    for name in ("query", "document"):
        inputs[name] = torch.nn.functional.normalize(inputs[name], dim=1)
        inputs[name] = inputs[name] + 0.5 * (name == "document") * inputs["query"][0]
    return {name: value.to(device) for name, value in inputs.items()}


def gathered(device, rank=1):
    """What one of three ranks sees: documents of all, own queries first among all."""
    everything = example(device, queries=24, group=2, positives=2)
    own = torch.arange(8 * rank, 8 * rank + 8, device=device)
    others = torch.tensor([i for i in range(24) if i // 8 != rank], device=device)
    order = torch.cat([own, others])
    ids, positives = everything["document_ids"], everything["positives"]
    of_positives = ids[positives.clamp_min(0)].masked_fill(positives < 0, -1)
    return {
        **{name: everything[name] for name in ("document", "document_ids", "temperature")},
        **{name: everything[name][own] for name in ("query", "query_ids", "known_positives")},
        "positives": positives[own],
        "all_query": everything["query"][order],
        "all_query_ids": everything["query_ids"][order],
        "all_known_positives": torch.cat([of_positives, everything["known_positives"]], 1)[order],
        "owners": order.argsort()[everything["owners"]],
    }


LEAVES = ("query", "document", "temperature", "all_query")


def run(inputs, backend, dtype=None, **options):
    values = dict(inputs)
    leaves = [name for name in LEAVES if name in values]
    for name in leaves:
        leaf = values[name].detach()
        leaf = leaf.to(dtype) if dtype is not None else leaf
        values[name] = leaf.clone().requires_grad_()
    output = infonce(**values, backend=backend, **options)
    wanted = [values[name] for name in leaves]
    gradients = torch.autograd.grad(output.loss, wanted, allow_unused=True, materialize_grads=True)
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
    "others": InfoNCEOptions(negatives="others"),
    "hardness": InfoNCEOptions(hardness=3.0),
    "positive margin": InfoNCEOptions(directions=BOTH, positive_margin=0.3),
    "smoothing": InfoNCEOptions(label_smoothing=0.2),
    "all directions": InfoNCEOptions(directions=ALL),
    "everything": InfoNCEOptions(
        directions=ALL,
        negatives="others",
        false_negative_margin=-0.05,
        hardness=2.0,
        label_smoothing=0.1,
    ),
    "guarded per direction": InfoNCEOptions(
        directions=BOTH, partition="per_direction", false_negative_margin=-0.05, hardness=2.0
    ),
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_every_supported_option_equals_the_reference(device, options):
    assert_as_good_as_reference(example(device), options=options)


@pytest.mark.parametrize("several", ["average", "any", "decoupled"])
@pytest.mark.parametrize("directions", [BOTH[:1], BOTH, ALL], ids=["row", "joint", "all"])
def test_several_positives_and_relevant_ids_equal_the_reference(device, several, directions):
    options = InfoNCEOptions(directions=directions, several_positives=several)
    assert_as_good_as_reference(example(device, group=4, positives=3, known=5), options=options)


@pytest.mark.parametrize("options", ["plain", "margin", "all directions", "guarded per direction"])
@pytest.mark.parametrize("rank", [0, 2])
def test_documents_and_queries_of_other_ranks_equal_the_reference(device, options, rank):
    assert_as_good_as_reference(gathered(device, rank), options=OPTIONS[options])


def test_documents_without_ids_in_all_directions(device):
    inputs = example(device, positives=2)
    for name in ("document_ids", "query_ids", "known_positives"):
        del inputs[name]
    inputs["positives"][3] = inputs["positives"][2]  # two queries answered by one document
    assert_as_good_as_reference(inputs, options=OPTIONS["all directions"])


@pytest.mark.parametrize("dim", [528, 4096])
def test_large_embeddings_equal_the_reference(device, dim):
    assert_as_good_as_reference(example(device, queries=7, dim=dim), options=SYMMETRIC)


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
    "float64": {"dtype": torch.float64},
    "65 positives or relevant ids": {"known": 64},
    "dim 24": {"dim": 24},
}


@pytest.mark.parametrize("reason", UNSUPPORTED)
def test_what_the_kernels_lack_is_an_error_that_names_it(device, reason):
    change = dict(UNSUPPORTED[reason])
    inputs = example(device, dim=change.pop("dim", 32), known=change.pop("known", 1))
    dtype = change.pop("dtype", torch.float32)
    inputs["query"] = inputs["query"].to(dtype)
    inputs["document"] = inputs["document"].to(dtype)
    with pytest.raises(UserError, match=reason):
        infonce(**inputs, backend="fused", **change)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_what_is_supported_is_decided_without_a_value(monkeypatch, options):
    """Tensors of the meta device have shapes only: reading one is an error."""
    monkeypatch.setattr("embedtrain.ops.infonce.fused.architecture", lambda device: 90)
    monkeypatch.setattr("embedtrain.ops.infonce.fused.interpreting", lambda: True)
    inputs = {name: value.to("meta") for name, value in example("cpu").items()}
    assert unsupported(make_problem(**inputs, options=options)) == ""
    inputs["query"] = inputs["query"].half()
    assert "types torch.float16 and" in unsupported(make_problem(**inputs, options=options))


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
