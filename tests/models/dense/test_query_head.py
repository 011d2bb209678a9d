"""What a query becomes beside a vector: the published formulas, an exported model, and a task no inner product wins."""

import pytest
import torch
import torch.nn.functional as F

from embedtrain.models.build import build_dense, load_dense, save_dense
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.pair_head import interaction_of
from embedtrain.models.dense.query_head import (
    CodesHead,
    NetworkHead,
    QueryCodesConfig,
    QueryNetworkConfig,
)
from embedtrain.ops.interaction import interaction_scores

LENGTHS = torch.tensor([3, 1, 5])


@pytest.fixture
def states():
    return torch.randn(9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def network(dim=4, **settings):
    torch.manual_seed(0)
    return NetworkHead(6, dim, QueryNetworkConfig(**settings))


def made(matrix, own):
    """Compute one matrix of a query's network as the paper writes it, outputs in rows."""
    keys, values = matrix.key(own), matrix.value(own)
    weights = (matrix.seeds @ keys.T / len(matrix.seeds) ** 0.5).softmax(1)
    seen = F.layer_norm((weights @ values).relu(), (keys.shape[1],))
    return matrix.base + matrix.change(seen)


def test_networks_are_the_published_formula_text_by_text(states):
    head = network(num_layers=2).double()
    for matrix in (*head.matrices, *head.biases, head.output):
        torch.nn.init.normal_(matrix.change.weight)
    found = head(states, LENGTHS)
    assert found.shape == (3, head.num_numbers)
    for row, own in enumerate(states.split(LENGTHS.tolist())):
        parts = []
        for matrix, bias in zip(head.matrices, head.biases, strict=True):
            parts += [made(matrix, own).T.flatten(), made(bias, own).flatten()]
        expected = torch.cat([*parts, made(head.output, own).flatten()])
        torch.testing.assert_close(found[row], expected)


def test_codes_are_the_published_formula_and_other_texts_do_not_matter(states):
    torch.manual_seed(0)
    head = CodesHead(6, 4, QueryCodesConfig(num_codes=3)).double()
    found = head(states, LENGTHS)
    for row, own in enumerate(states.split(LENGTHS.tolist())):
        vectors = head.project((head.codes @ own.T).softmax(1) @ own)
        torch.testing.assert_close(found[row], vectors.flatten())
    torch.testing.assert_close(head(states[4:], LENGTHS[2:])[0], found[2])


def test_at_first_queries_have_nearly_the_same_network(states):
    found = network(dim=16).double()(states, LENGTHS)
    assert 0 < found.var(0).max() < 1e-3
    assert found.var() > 0.01


def test_networks_win_a_task_that_no_inner_product_can():
    """A document of two signs is relevant if their product is the query's: opposite corners of a square."""
    head = network(dim=8)
    queries = torch.tensor([[1.0, 0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0, 0]])
    corners = torch.tensor([[1.0, 1], [-1, -1], [1, -1], [-1, 1]])
    documents = F.pad(corners, (0, 6))
    relevant = torch.tensor([[True, True, False, False], [False, False, True, True]])
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)

    def scores():
        return interaction_scores(head.scorer, head(queries, torch.tensor([1, 1])), documents)

    for _ in range(150):
        found = scores()
        worst = found[relevant].view(2, 2, 1) - found[~relevant].view(2, 1, 2)
        optimizer.zero_grad()
        F.softplus(-worst).mean().backward()
        optimizer.step()
    found = scores()
    assert (
        found[relevant].view(2, 2).min(1).values.gt(found[~relevant].view(2, 2).max(1).values).all()
    )
    # Whatever the vector of a query, opposite corners have opposite inner products.
    vectors = torch.randn(100, 8) @ documents.T
    torch.testing.assert_close(vectors[:, 0], -vectors[:, 1])


@pytest.mark.parametrize("part", ["query_network", "query_codes"])
@pytest.mark.parametrize("projection", [None, 8])
def test_the_encoder_makes_them_of_queries_only_and_survives_an_export(
    part, projection, bert, tmp_path
):
    settings = {"backbone": bert, "projection": projection, part: {}}
    model = build_dense(DenseConfig.model_validate(settings), "cpu").eval()
    texts = model.tokenization.encode(["red cat", "a small blue bird sleeps"], "query")
    with torch.no_grad():
        expected = [model.embed(texts, Execution(1000), side) for side in ("query", "document")]
        torch.testing.assert_close(
            model.embed(texts, Execution(4), "query"), expected[0], atol=1e-5, rtol=1e-5
        )
        save_dense(model, tmp_path / "model")
        again = load_dense(str(tmp_path / "model")).eval()
        found = [again.embed(texts, Execution(1000), side) for side in ("query", "document")]
    for one, other, side in zip(found, expected, ("query", "document"), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        assert one.shape[1] == model.dim_of(side)
    assert interaction_of(again) == interaction_of(model)
    assert not model.is_portable


def test_two_ways_to_score_are_refused(bert):
    with pytest.raises(ValueError, match="interaction and query_codes score pairs in two ways"):
        DenseConfig.model_validate({"backbone": bert, "interaction": {}, "query_codes": {}})
