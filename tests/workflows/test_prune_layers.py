"""Layers, heads and columns go by what vectors lose without them."""

import copy

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.contract.stored import StoredOutputs
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import load_dense, save_encoder
from embedtrain.models.edits.prune_layers import drop_layers


@pytest.fixture
def idle(bert, tmp_path):
    """A model of four layers, the second and third of which hardly change what they get, the third less."""
    model = load_dense(bert)
    first, last = model.backbone.encoder.layer
    between = [copy.deepcopy(first) for _ in range(2)]
    with torch.no_grad():
        for layer, share in zip(between, (1e-2, 1e-3), strict=True):
            for name, weight in layer.named_parameters():
                if name.endswith(("output.dense.weight", "output.dense.bias")):
                    weight.mul_(share)
    model.backbone.encoder.layer = torch.nn.ModuleList([first, *between, last])
    model.backbone.config.num_hidden_layers = 4
    stored = StoredOutputs(quantize=("binary",), dims=(model.dim,))
    model.contract = model.contract.model_copy(update={"outputs": stored})
    save_encoder(model, tmp_path / "idle")
    return str(tmp_path / "idle")


def test_the_layers_that_do_least_go_first(idle, sentences, tmp_path, forked_reloads):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(sentences[:20]) + "\n", encoding="utf-8")
    output = tmp_path / "smaller"
    words = ["prune-layers", idle, str(texts), "--keep", "2", "--output", str(output)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "layers 1, 2, 4: distance" in done.output
    assert "layers 1, 4: distance" in done.output
    assert "model.kept_layers=[1, 4]" in done.output
    whole, smaller = (
        encode_texts(load_dense(one), sentences[:20], "document") for one in (idle, str(output))
    )
    told = float(done.output.split("layers 1, 4: distance ")[1].split(";")[0])
    assert np.square(whole - smaller).sum(1).mean() == pytest.approx(told, abs=1e-3)
    assert load_dense(str(output)).contract.outputs is None, "its bits are of the whole model"
    theirs = SentenceTransformer(str(output), device="cpu").encode(sentences[:20])
    np.testing.assert_allclose(theirs, smaller, atol=2e-6)


def test_each_round_tries_every_layer_that_is_left(bert):
    model, seen = load_dense(bert), []

    def distance(smaller):
        seen.append(smaller.num_layers)
        return 0.0

    rounds = list(drop_layers(model, 1, distance))
    assert seen == [1, 1]
    assert [one.kept for one in rounds] == [(1,)]
    assert model.num_layers == 2, "the model itself stays whole"


def test_layers_heads_and_columns_go_in_one_run(llama, sentences, tmp_path, forked_reloads):
    texts, output = tmp_path / "texts.txt", tmp_path / "narrow"
    texts.write_text("\n".join(sentences[:20]) + "\n", encoding="utf-8")
    words = "--keep 1 --heads 2 --columns 16 --limit 5"
    done = CliRunner().invoke(
        app, ["prune-layers", llama, str(texts), "--output", str(output), *words.split()]
    )
    assert done.exit_code == 0, done.output
    assert "heads 2 of 4: distance" in done.output
    assert "columns 16 of 64: distance" in done.output
    assert "kept_layers" not in done.output, "no recipe says it"
    found = encode_texts(load_dense(str(output)), sentences[:20], "document")
    theirs = SentenceTransformer(str(output), device="cpu").encode(sentences[:20])
    np.testing.assert_allclose(theirs, found, atol=2e-6)


def test_what_has_no_layers_to_lose_is_refused(bert, late_interaction, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("a cat\n", encoding="utf-8")
    for model, keep, message in (
        (bert, 2, "is not between 1 and 1; got 2"),
        (late_interaction, 1, "several vectors per text"),
    ):
        output = tmp_path / "out"
        words = ["prune-layers", model, str(texts), "--keep", str(keep), "--output", str(output)]
        failed = CliRunner().invoke(app, words)
        assert isinstance(failed.exception, UserError), failed.output
        assert message in str(failed.exception)
        assert not output.exists()
