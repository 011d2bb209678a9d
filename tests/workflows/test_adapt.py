"""Adapters of vectors: no model is needed to train them, and NumPy is enough to use them."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import load_encoder
from embedtrain.models.edits.adapters import VectorAdapter, apply_adapter
from embedtrain.training.adapters.fit import AdaptConfig, train_adapters
from embedtrain.training.adapters.objective import adapted, ranking_loss, unsupervised_loss
from embedtrain.workflows.adapt import AdapterFiles, adapt, read_data

DIM = 12
KINDS = [
    {"kind": "low_rank", "rank": 3},
    {"kind": "low_rank", "rank": 3, "activation": "tanh"},
    {"kind": "linear"},
    {"kind": "mlp", "rank": 8, "activation": "relu"},
]


@pytest.fixture
def files(tmp_path) -> AdapterFiles:
    """Queries are documents turned in a plane, so that a low-rank transform can turn them back."""
    generator = np.random.default_rng(0)
    documents = generator.normal(size=(120, DIM)).astype(np.float32)
    turn = np.eye(DIM, dtype=np.float32)
    turn[:4, :4] = np.linalg.qr(generator.normal(size=(4, 4)))[0]
    queries = documents[:80] @ turn.T + 0.1 * generator.normal(size=(80, DIM)).astype(np.float32)
    np.save(tmp_path / "d.npy", documents)
    np.save(tmp_path / "q.npy", queries.astype(np.float32))
    lines = "".join(f"{row}\t{row}\n" for row in range(80))
    (tmp_path / "pairs.tsv").write_text(lines)
    return AdapterFiles(tmp_path / "d.npy", tmp_path / "q.npy", tmp_path / "pairs.tsv")


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_begins_as_the_identity(kind):
    config = AdaptConfig(**kind)
    adapter = VectorAdapter(DIM, config.kind, config.rank, config.activation)
    vectors = torch.randn(5, DIM)
    torch.testing.assert_close(adapter(vectors), vectors)
    torch.testing.assert_close(adapter.residual(vectors), torch.zeros(5, DIM))


@pytest.mark.parametrize("kind", KINDS)
def test_numpy_gives_what_training_compared(kind, files, tmp_path):
    config = AdaptConfig(**kind, sides="separate", steps=5, batch_size=16)
    data = read_data(files, config)
    adapters, _ = train_adapters(data, config)
    adapt(files, tmp_path / "out", config)
    for side, vectors in (("query", data.queries), ("document", data.documents)):
        found = apply_adapter(tmp_path / "out", vectors.numpy(), side)
        expected = adapted(adapters, side, vectors).detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_planted_rotation_of_low_rank_is_found(files):
    config = AdaptConfig(rank=4, steps=300, batch_size=64, learning_rate=1.0e-2)
    adapters, figures = train_adapters(read_data(files, config), config)
    assert figures["held_out_mrr_at_10"] > figures["held_out_mrr_at_10_before"] + 0.1
    residual = adapters["query"].matrix - torch.eye(DIM)
    assert torch.linalg.matrix_rank(residual, tol=1e-4) <= 4


def test_adapting_queries_leaves_documents_alone(files, tmp_path):
    adapt(files, tmp_path / "out", AdaptConfig(steps=5, batch_size=16))
    documents = np.load(files.documents)
    expected = documents / np.linalg.norm(documents, axis=1, keepdims=True)
    found = apply_adapter(tmp_path / "out", documents, "document")
    np.testing.assert_allclose(found, expected, atol=1e-6)
    description = json.loads((tmp_path / "out" / "adapter.json").read_text())
    assert description["sides"] == ["query"]


def test_a_linear_adapter_is_a_dense_module_and_part_of_a_model(bert, pairs, sentences, tmp_path):
    model = load_encoder(bert)
    vectors = encode_texts(model, sentences[:40], "document")
    for name in ("q", "d"):
        np.save(tmp_path / f"{name}.npy", vectors)
    (tmp_path / "p.tsv").write_text("".join(f"{row}\t{(row + 1) % 40}\n" for row in range(40)))
    files = AdapterFiles(tmp_path / "d.npy", tmp_path / "q.npy", tmp_path / "p.tsv")
    config = AdaptConfig(kind="linear", sides="shared", steps=5, batch_size=8)
    adapt(files, tmp_path / "out", config, bert)
    adapted_model = load_encoder(str(tmp_path / "out" / "model"))
    found = encode_texts(adapted_model, sentences[:5], "query")
    expected = apply_adapter(tmp_path / "out", vectors[:5], "query")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    dense = load_file(tmp_path / "out" / "dense_query" / "model.safetensors")["linear.weight"]
    torch.testing.assert_close(dense, adapted_model.projection.weight)


def batch(dim: int = DIM) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(6, dim, generator=generator)
    near = torch.randn(6 * 3, dim, generator=generator)
    other = torch.ones(6, 3, dtype=torch.bool)
    other[0, 0] = False
    return vectors, near, other


def test_a_matryoshka_adaptor_that_changes_nothing_costs_nothing_at_the_full_size():
    adapter = VectorAdapter(DIM, "mlp", 8, "relu")
    settings = {"pair_weight": 1.0, "residual_weight": 1.0}
    full = unsupervised_loss(adapter, *batch(), dims=(DIM,), **settings)
    short = unsupervised_loss(adapter, *batch(), dims=(4,), **settings)
    assert full.item() == pytest.approx(0, abs=1e-6)
    assert short.item() > 0.1  # the size has an effect


def test_the_unsupervised_loss_equals_a_loop_over_pairs():
    torch.manual_seed(0)
    adapter = VectorAdapter(DIM, "mlp", 8, "relu")
    torch.nn.init.normal_(adapter.up.weight, std=0.1)
    vectors, near, other = batch()
    loss = unsupervised_loss(
        adapter, vectors, near, other, dims=(5,), pair_weight=0.5, residual_weight=0.25
    )
    cosine = torch.nn.functional.cosine_similarity
    with torch.no_grad():
        new, new_near = adapter(vectors)[:, :5], adapter(near)[:, :5]
        top = [
            (cosine(vectors[i], near[3 * i + k], 0) - cosine(new[i], new_near[3 * i + k], 0)).abs()
            for i in range(6)
            for k in range(3)
            if other[i, k]
        ]
        pairs = [
            (cosine(vectors[i], vectors[j], 0) - cosine(new[i], new[j], 0)).abs()
            for i in range(6)
            for j in range(6)
            if i != j
        ]
        size = (adapter(vectors) - vectors).abs().mean()
    expected = torch.stack(top).mean() + 0.5 * torch.stack(pairs).mean() + 0.25 * size
    torch.testing.assert_close(loss, expected)


def test_ranking_compares_with_documents_that_do_not_answer():
    query, document = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    answers = torch.eye(2, dtype=torch.bool)
    loss = ranking_loss(query, document, answers, dims=(2,))
    margins = torch.tensor([0.6 - 1.0, 0.0 - 0.8])
    torch.testing.assert_close(loss, torch.nn.functional.softplus(margins).mean())


def test_an_unsupervised_matryoshka_adaptor_needs_no_pairs(files, tmp_path):
    only = AdapterFiles(files.documents)
    config = AdaptConfig(kind="mlp", sides="shared", dims=(3, 6), activation="relu", steps=60)
    data = read_data(only, config)
    adapters, figures = train_adapters(data, config)
    assert figures == {}

    def change(adapter: VectorAdapter) -> float:
        with torch.no_grad():
            near = torch.ones(len(data.documents), 1, dtype=torch.bool)
            return unsupervised_loss(
                adapter, data.documents, data.documents.roll(1, 0), near, dims=(3,),
                pair_weight=1.0, residual_weight=0.0,
            ).item()  # fmt: skip

    before = VectorAdapter(DIM, "mlp", config.rank, "relu")
    assert change(adapters["query"]) < 0.95 * change(before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": "0\t0\n0\t200\n"}, r"pairs.tsv:2 names a row beyond"),
        ({"pairs": "0 0\n"}, r"pairs.tsv:1 must be two row numbers"),
        ({"pairs": "0\t\u00b2\n"}, r"pairs.tsv:1 must be two row numbers"),
        ({"pairs": "0\t0\n0\t1\n"}, "at least two queries"),
        ({"queries": np.ones((3, 5), np.float32)}, "another dimension"),
        ({"queries": np.full((80, DIM), np.nan, np.float32)}, "not finite"),
        ({"queries": np.ones(3, np.float32)}, "a vector per row"),
    ],
)
def test_files_that_do_not_fit_are_refused(files, change, message, tmp_path):
    if "pairs" in change:
        files.pairs.write_text(change["pairs"], encoding="utf-8")
    else:
        np.save(files.queries, change["queries"])
    with pytest.raises(UserError, match=message):
        adapt(files, tmp_path / "out", AdaptConfig())
    assert not (tmp_path / "out").exists()


def test_wishes_that_contradict_each_other_are_refused(files, bert, tmp_path):
    with pytest.raises(UserError, match="--pairs is missing"):
        adapt(AdapterFiles(files.documents), tmp_path / "out", AdaptConfig())
    with pytest.raises(ValueError, match="sides=shared"):
        AdaptConfig(dims=(3,))
    with pytest.raises(UserError, match="dimensions in the files"):
        adapt(files, tmp_path / "out", AdaptConfig(), bert)


def test_sizes_are_compared_with_cutting_and_with_principal_components(files):
    """A circle in the last two of 12 numbers: principal components begin with it, cutting keeps noise."""
    generator = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    vectors = 1e-3 * generator.normal(size=(120, DIM))
    vectors[:, -2:] += np.tile(np.stack([np.cos(angles), np.sin(angles)], 1), (2, 1))
    np.save(files.queries, vectors[:60].astype(np.float32))
    np.save(files.documents, vectors[60:].astype(np.float32))
    files.pairs.write_text("".join(f"{row}\t{row}\n" for row in range(60)))
    config = AdaptConfig(kind="linear", sides="shared", dims=(DIM, 2), steps=3, batch_size=16)
    _, figures = train_adapters(read_data(files, config), config)
    name = "held_out_mrr_at_10_dim_{}_{}".format
    assert figures[name(DIM, "cut")] == figures[name(DIM, "principal_components")] == 1.0
    assert figures[name(2, "principal_components")] == 1.0
    assert figures[name(2, "cut")] < 0.5


def test_ranks_before_are_those_of_untouched_vectors(files):
    config = AdaptConfig(
        kind="linear", sides="shared", dims=(4,), steps=60, batch_size=16, learning_rate=0.1
    )
    _, figures = train_adapters(read_data(files, config), config)
    assert figures["held_out_mrr_at_10_before"] == figures["held_out_mrr_at_10_dim_4_cut"]
    assert figures["held_out_mrr_at_10"] == figures["held_out_mrr_at_10_dim_4_adapted"]
