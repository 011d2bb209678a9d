"""Two linear layers, one behind the other, are one."""

import json

import pytest
import torch
from torch import nn

from embedtrain.errors import UserError
from embedtrain.models.backbone.files import as_one, read_projection, write_projection
from embedtrain.models.build import load_dense, save_dense


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
