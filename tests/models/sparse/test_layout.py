"""Folders of sparse models: ours, and those that sentence-transformers writes and reads."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from sparse_toys import (
    TEXTS,
    check_sentence_transformers,
    save_masked_model,
    sparse_encoder,
    weights_of,
)

from embedtrain.errors import UserError
from embedtrain.models.build import load_encoder, save_encoder
from embedtrain.models.sparse.layout import STATIC_FOLDER
from embedtrain.release.export import export
from embedtrain.release.onnx import export_onnx

PORTABLE = {
    "plain": {},
    "twice": {"activation": "log1p_twice"},
    "prompted": {"query": {"prompt": "the ", "length": 16}},
    "few": {"query": {"top_k": 4}, "document": {"top_k": 4}},
    "ordinary": {"special_entries": "drop"},
}
OWN = {
    "token weights": {"head": "token_weights"},
    "wide": {"head": "winner_take_all", "winners": {"entries": 50, "winners": 2, "layers": [1]}},
    "static": {"query_weights": {}, "query": {"prompt": "the ", "length": 12}},
    "unlike": {"document": {"top_k": 5, "length": 16}},
    "without": {"pooled_tokens": "without_special", "query_weights": {}},
}


def varied(folder: str, settings: dict[str, object]):
    model = sparse_encoder(folder, **settings)
    if model.query_weights is not None:
        torch.nn.init.normal_(model.query_weights.weight)
    return model


@pytest.mark.parametrize("settings", (PORTABLE | OWN).values(), ids=(PORTABLE | OWN).keys())
def test_a_saved_model_gives_the_same_weights(masked_model, tmp_path, settings):
    model = varied(masked_model, settings)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save_encoder(model, tmp_path / "model")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    loaded = load_encoder(str(tmp_path / "model")).eval()
    assert loaded.contract == model.contract
    for side in ("query", "document"):
        assert torch.equal(weights_of(loaded, TEXTS, side), weights_of(model, TEXTS, side))


def test_sentence_transformers_gives_the_same_weights_and_its_folders_are_read(
    bert, masked_model, tmp_path
):
    pytest.importorskip("sentence_transformers")
    models = {name: varied(masked_model, settings) for name, settings in PORTABLE.items()}
    exact = save_masked_model(tmp_path / "exact", bert, exact=True)
    models["static"] = varied(exact, OWN["static"])
    models["static doc"] = varied(exact, {"query_weights": {}, "special_entries": "drop"})
    check_sentence_transformers(models, tmp_path)


def test_a_model_that_others_cannot_express_hides_its_backbone_from_them(masked_model, tmp_path):
    save_encoder(sparse_encoder(masked_model, **OWN["without"]), tmp_path / "model")
    assert not (tmp_path / "model" / "config.json").exists()
    assert not (tmp_path / "model" / "modules.json").exists()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("1_SpladePooling/config.json", {"pooling_strategy": "sum"}, "pools in a way"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "cosine"}, "similarity"),
        ("modules.json", [], "names no SpladePooling"),
    ],
)
def test_what_is_not_offered_is_said_in_one_line(sparse_model, tmp_path, file, change, message):
    folder = tmp_path / "model"
    shutil.copytree(sparse_model, folder)
    (folder / "embedtrain.json").unlink()
    path = folder / file
    content = change if isinstance(change, list) else json.loads(path.read_text()) | change
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        load_encoder(str(folder))


def test_a_masked_model_that_says_nothing_of_its_use_is_exported_as_a_sparse_one(
    masked_model, tmp_path
):
    export(masked_model, tmp_path / "model", sparse=True)
    loaded = load_encoder(str(tmp_path / "model")).eval()
    plain = sparse_encoder(masked_model, query={"length": 64}, document={"length": 64})
    assert torch.equal(weights_of(loaded, TEXTS), weights_of(plain, TEXTS))


@pytest.mark.parametrize("own", [False, True])
def test_weights_of_queries_that_are_missing_are_no_ones(bert, tmp_path, own):
    exact = save_masked_model(tmp_path / "exact", bert, exact=True)
    folder, settings = tmp_path / "model", OWN["without" if own else "static"]
    save_encoder(varied(exact, settings), folder)
    static = folder if own else folder / STATIC_FOLDER
    (static / ("query_weights.safetensors" if own else "model.safetensors")).unlink()
    with pytest.raises(UserError, match="is missing the weights of its queries' tokens"):
        load_encoder(str(folder))


def test_weights_of_a_folder_are_trained_where_the_recipe_says_so(bert, tmp_path):
    exact = save_masked_model(tmp_path / "exact", bert, exact=True)
    folder = tmp_path / "model"
    save_encoder(varied(exact, OWN["static"]), folder)
    kept = sparse_encoder(str(folder)).query_weights
    trained = sparse_encoder(str(folder), query_weights={}).query_weights
    assert not list(kept.parameters())
    assert len(list(trained.parameters())) == 1
    assert torch.equal(kept.weight, trained.weight)


def test_no_graph_is_written_of_a_sparse_model(sparse_model):
    with pytest.raises(UserError, match="is a sparse model, which has no graph"):
        export_onnx(Path(sparse_model))
