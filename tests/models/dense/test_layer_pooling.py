"""Pooling over layers: what it depends on, and what it does not."""

import pytest
import torch

from embedtrain.models.build import build_dense, load_dense, save_dense
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.layer_pooling import LayerPooling, LayerPoolingConfig

SMALL = LayerPoolingConfig(num_latents=4, num_heads=2, head_dim=8)


def pooling(num_layers=3):
    torch.manual_seed(0)
    return LayerPooling(16, num_layers, SMALL).double()


def test_the_order_of_layers_is_in_their_embeddings_alone():
    module, layers = pooling(), torch.randn(5, 3, 16, dtype=torch.float64)
    expected = module(layers)
    order = torch.tensor([2, 0, 1])
    assert (module(layers[:, order]) - expected).abs().max() > 1e-6
    module.layers.data = module.layers.data[order]
    torch.testing.assert_close(module(layers[:, order]), expected)


def test_with_one_layer_there_is_nothing_to_choose():
    module, layers = pooling(1), torch.randn(5, 1, 16, dtype=torch.float64)
    before = module(layers)
    torch.nn.init.normal_(module.to_query.weight)
    torch.nn.init.normal_(module.to_key.weight)
    torch.testing.assert_close(module(layers), before)


def test_every_layer_gets_a_gradient():
    layers = torch.randn(5, 3, 16, dtype=torch.float64, requires_grad=True)
    pooling()(layers).square().sum().backward()
    assert (layers.grad.abs().amax((0, 2)) > 1e-6).all()


@pytest.mark.parametrize("backbone", ["llama", "bert"])
def test_the_encoder_pools_each_layer_and_survives_an_export(backbone, request, tmp_path):
    config = DenseConfig(
        backbone=request.getfixturevalue(backbone),
        pooling="last_token" if backbone == "llama" else "mean",
        layer_pooling=SMALL,
        projection=8,
    )
    model = build_dense(config, "cpu").eval()
    texts = model.tokenization.encode(["red cat", "a small blue bird sleeps"], "query")
    with torch.no_grad():
        expected = model.embed(texts, Execution(1000))
        torch.testing.assert_close(model.embed(texts, Execution(4)), expected, atol=1e-5, rtol=1e-4)
        save_dense(model, tmp_path / "model")
        found = load_dense(str(tmp_path / "model")).eval().embed(texts, Execution(1000))
    assert expected.shape == (2, 8)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
