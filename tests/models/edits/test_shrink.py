import json
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer

from embedtrain.contract.stored import StoredOutputs
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, load_dense, load_encoder, save_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.edits.shrink import shrink
from embedtrain.release.export import export

TEXTS = ["the red cat", "a small dog runs under the tree", "bird"]


@pytest.mark.parametrize("projection", [None, 12])
def test_the_first_dimensions_of_an_exit_are_what_the_whole_model_gives(bert, projection):
    torch.manual_seed(0)
    config = DenseConfig(
        backbone=bert, exits=(1,), projection=projection, exit_heads=projection is not None
    )
    model = build_dense(config).eval()
    tokens = model.tokenization.encode(TEXTS, "document")
    with torch.no_grad():
        both = model.embed_layers(tokens, Execution(), (1,))
    expected = torch.nn.functional.normalize(both[:, :7], dim=1)
    small = shrink(model, layer=1, dim=7)
    assert (small.num_layers, small.dim) == (1, 7)
    found = torch.from_numpy(encode_texts(small, TEXTS, "document"))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))


def test_an_exported_cut_is_smaller_and_loads_in_sentence_transformers(bert, tmp_path):
    small = export(bert, tmp_path / "small", layer=1, dim=8)
    assert weight_bytes(small) < weight_bytes(Path(bert))
    theirs = SentenceTransformer(str(small), device="cpu")
    assert theirs.get_embedding_dimension() == 8
    loaded = load_encoder(str(small))
    ours = encode_texts(loaded, TEXTS, "document")
    assert abs(theirs.encode_document(TEXTS) - ours).max() < 1e-6
    save_encoder(loaded, tmp_path / "again")
    for folder in (small, tmp_path / "again"):
        config = json.loads((folder / "config_sentence_transformers.json").read_text())
        assert config["truncate_dim"] == 8


def test_a_folder_keeps_the_heads_of_its_exits(bert, tmp_path):
    torch.manual_seed(0)
    model = build_dense(DenseConfig(backbone=bert, exits=(1,), exit_heads=True, projection=6))
    save_encoder(model, tmp_path)
    small = shrink(load_dense(str(tmp_path)), layer=1)
    torch.testing.assert_close(small.projection.weight, model.exits.head(1).weight)


@pytest.mark.parametrize(("wish", "place"), [({"layer": 3}, "layer"), ({"dim": 33}, "dim")])
def test_layers_and_dimensions_that_do_not_exist_are_refused(bert, wish, place):
    with pytest.raises(UserError, match=f"--{place} is not"):
        shrink(load_dense(bert), **wish)


def test_several_vectors_per_text_are_refused(late_interaction):
    with pytest.raises(UserError, match="one plain vector"):
        shrink(load_encoder(late_interaction), dim=2)


@pytest.mark.parametrize(("exits", "kept"), [((), False), ((1,), True)])
def test_a_cut_says_what_it_is_stored_as_only_where_it_was_trained_there(bert, exits, kept):
    model = build_dense(DenseConfig(backbone=bert, exits=exits))
    stored = StoredOutputs(quantize=("binary",), dims=(model.dim,))
    model.contract = model.contract.model_copy(update={"outputs": stored})
    assert shrink(model, layer=1).contract.outputs == (stored if kept else None)
