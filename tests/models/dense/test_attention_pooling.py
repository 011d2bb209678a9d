"""Pooling by a learned seed: what it depends on, and what it does not."""

import math

import pytest
import torch

from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, load_dense, save_dense
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.attention_pooling import AttentionPooling, AttentionPoolingConfig
from embedtrain.models.dense.config import DenseConfig

LENGTHS = torch.tensor([3, 1, 5])


@pytest.fixture
def pooling():
    torch.manual_seed(0)
    return AttentionPooling(12, AttentionPoolingConfig(num_heads=3)).double()


@pytest.fixture
def states():
    return torch.randn(9, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_it_is_the_published_formula_text_by_text(pooling, states):
    found = pooling(states, LENGTHS)
    for row, own in enumerate(states.split(LENGTHS.tolist())):
        query, key, value = (
            pooling.to_query(pooling.seed)[0],
            pooling.to_key(own),
            pooling.to_value(own),
        )
        heads = []
        for head in range(3):
            part = slice(4 * head, 4 * head + 4)
            weights = (key[:, part] @ query[part] / math.sqrt(12)).softmax(0)
            heads.append(weights @ value[:, part])
        pooled = pooling.norm(pooling.seed[0] + torch.cat(heads))
        expected = pooling.output_norm(pooled + pooling.output(pooled).relu())
        torch.testing.assert_close(found[row], expected)


def test_neither_the_order_of_tokens_nor_other_texts_matter(pooling, states):
    found = pooling(states, LENGTHS)
    turned = torch.cat([states[:4], states[4:].flip(0)])
    torch.testing.assert_close(pooling(turned, LENGTHS), found)
    torch.testing.assert_close(pooling(states[4:], LENGTHS[2:])[0], found[2])


def test_large_logits_do_not_overflow(pooling, states):
    found = pooling.float()(1e4 * states.float(), LENGTHS)
    assert found.isfinite().all()


def test_gradients_are_those_of_finite_differences(pooling, states):
    states.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pooling(x, LENGTHS), states)


def test_the_encoder_pools_by_it_and_survives_an_export(bert, tmp_path):
    config = DenseConfig(backbone=bert, attention_pooling=AttentionPoolingConfig(num_heads=4))
    model = build_dense(config, "cpu").eval()
    texts = model.tokenization.encode(["red cat", "a small blue bird sleeps"], "query")
    with torch.no_grad():
        expected = model.embed(texts, Execution(1000))
        torch.testing.assert_close(model.embed(texts, Execution(4)), expected, atol=1e-6, rtol=1e-5)
        assert (load_dense(bert).eval().embed(texts, Execution(1000)) - expected).abs().max() > 0.01
        save_dense(model, tmp_path / "model")
        found = load_dense(str(tmp_path / "model")).eval().embed(texts, Execution(1000))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert not model.is_portable


def test_heads_that_do_not_divide_the_width_are_refused(bert):
    config = DenseConfig(backbone=bert, attention_pooling=AttentionPoolingConfig(num_heads=5))
    with pytest.raises(UserError, match="num_heads must divide the backbone's width"):
        build_dense(config, "cpu")
