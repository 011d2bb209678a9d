"""Pooling over layers: what it depends on, and what it does not."""

import pytest
import torch

from embedtrain.errors import UserError
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


def test_the_last_layers_stand_side_by_side(bert, tmp_path):
    whole = build_dense(DenseConfig(backbone=bert, layer_pooling={"last": 2}), "cpu").eval()
    alone = build_dense(DenseConfig(backbone=bert), "cpu").eval()
    before = build_dense(DenseConfig(backbone=bert, num_layers=whole.num_layers - 1), "cpu").eval()
    texts = whole.tokenization.encode(["red cat", "a small blue bird sleeps"], "query")
    with torch.no_grad():
        found = whole.embed(texts, Execution(1000))
        parts = [model.embed(texts, Execution(1000)) for model in (before, alone)]
        save_dense(whole, tmp_path / "model")
        again = load_dense(str(tmp_path / "model")).eval().embed(texts, Execution(1000))
    torch.testing.assert_close(again, found)
    assert found.shape[1] == whole.dim == 2 * alone.dim
    for own, part in zip(found.chunk(2, dim=1), parts, strict=True):
        torch.testing.assert_close(torch.nn.functional.normalize(own), part, atol=1e-5, rtol=1e-4)


def test_more_last_layers_than_there_are_are_refused(bert):
    with pytest.raises(UserError, match=r"layer_pooling\.last asks for more layers"):
        build_dense(DenseConfig(backbone=bert, layer_pooling={"last": 99}), "cpu")


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
