"""Linear layers behind the pooling: two of them are one, a tanh behind them stays."""

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch import nn

from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.backbone.files import TanhLinear, as_one, read_projection, write_projection
from embedtrain.models.build import build_dense, load_dense, save_dense
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.edits.rotate import check_rotatable
from embedtrain.models.edits.shrink import shrink


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("second", [True, False])
def test_their_product_gives_what_both_give(first, second):
    torch.manual_seed(0)
    one, other = nn.Linear(4, 9, bias=first), nn.Linear(9, 3, bias=second)
    both = as_one(one, other, "place")
    rows = torch.randn(5, 4)
    assert (both.bias is None) == (not first and not second)
    torch.testing.assert_close(both(rows), other(one(rows)), atol=1e-6, rtol=1e-5)


def test_layers_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match=r"place names a projection to 9 numbers .*; got 8"):
        as_one(nn.Linear(4, 9), nn.Linear(8, 3), "place")


def test_a_folder_with_two_projections_is_read_as_one(bert, tmp_path):
    """EmbeddingGemma's form: a wider layer and one back to the width."""
    model = load_dense(bert)
    model.projection = nn.Linear(32, 48, bias=False)
    save_dense(model, tmp_path)
    second = nn.Linear(48, 32, bias=False)
    write_projection(tmp_path / "3_Dense", second)
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules.insert(3, modules[2] | {"path": "3_Dense"})
    modules[4]["path"] = "4_Normalize"
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "3_Normalize").rename(tmp_path / "4_Normalize")
    found = load_dense(str(tmp_path)).projection
    assert found is not None
    expected = second.weight @ model.projection.weight
    torch.testing.assert_close(found.weight, expected, atol=1e-6, rtol=1e-5)


def test_a_pickled_projection_is_not_read_and_its_cure_is_named(tmp_path):
    write_projection(tmp_path, nn.Linear(4, 3))
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"Save its pickle anew, as docs/train\.md shows"):
        read_projection(tmp_path)


def test_a_tanh_behind_a_projection_is_trained_written_and_read_by_sentence_transformers(
    bert, tmp_path
):
    config = DenseConfig(
        backbone=bert, projection=6, projection_activation="tanh", similarity="dot"
    )
    model = build_dense(config)
    assert model.projection is not None
    with torch.no_grad():
        model.projection.weight.mul_(9)  # far from where a tanh is a line
    save_dense(model, tmp_path / "model")
    vectors = encode_texts(load_dense(str(tmp_path / "model")), ["red cat", "dog"], "document")
    plain = nn.Linear(32, 6, bias=False)
    plain.load_state_dict(model.projection.state_dict())
    tanh, model.projection = model.projection, plain
    linear = encode_texts(model, ["red cat", "dog"], "document")
    assert np.abs(linear).max() > 1
    np.testing.assert_allclose(vectors, np.tanh(linear), atol=1e-6)
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(["red cat", "dog"])
    np.testing.assert_allclose(vectors, theirs, atol=1e-5)
    model.projection = tanh
    first = encode_texts(shrink(model, dim=2), ["red cat", "dog"], "document")
    np.testing.assert_allclose(first, vectors[:, :2], atol=1e-6)


def test_what_multiplies_matrices_refuses_a_tanh_between_them(bert):
    tanh = TanhLinear(4, 4)
    for pair in ((tanh, nn.Linear(4, 3)), (nn.Linear(4, 4), tanh)):
        with pytest.raises(UserError, match="place has a tanh behind its projection"):
            as_one(*pair, "place")
    config = DenseConfig(backbone=bert, projection=6, projection_activation="tanh")
    with pytest.raises(UserError, match="MODEL has a tanh"):
        check_rotatable(build_dense(config))
    with pytest.raises(ValueError, match="needs projection"):
        DenseConfig(backbone=bert, projection_activation="tanh")
