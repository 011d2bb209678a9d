"""The recipe of static tables: contrast trains what `embedtrain static` wrote, and its run is a table again."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.encoding.texts import encode_texts
from embedtrain.models.build import load_dense, save_encoder
from embedtrain.models.static.distil import choose_words, words_encoder
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.resources import resource
from embedtrain.workflows.doctor import diagnose
from embedtrain.workflows.train import train


@pytest.fixture
def recipe(sentences, pairs, tmp_path):
    words = choose_words(sentences, 12, 1)
    rows = torch.randn(len(words), 16, generator=torch.Generator().manual_seed(0))
    rows[0] = 0
    save_encoder(words_encoder(words, rows), tmp_path / "static")
    overrides = [
        f"model.backbone={tmp_path / 'static'}",
        f"data.sources=[{{path: {pairs}}}]",
        *("trainer.steps=30", "trainer.batch_size=8", "trainer.learning_rate=0.05"),
    ]
    return load_recipe(resource("recipes") / "dense" / "static.yaml", overrides)


def test_its_chunks_give_the_plain_gradients(recipe):
    diagnosis = diagnose(recipe)
    assert diagnosis.healthy, diagnosis
    assert any(group.norm > 0 for group in diagnosis.groups)


def test_contrast_brings_pairs_together_and_the_run_exports_a_table(recipe, pairs, beir, tmp_path):
    run = train(recipe, tmp_path / "run")
    losses = np.genfromtxt(run.metrics, delimiter=",", names=True)["trainloss"]
    assert losses[-1] < 0.7 * losses[0]
    texts = ["red cat", "over the house", "zebra"]
    ours = encode_texts(load_dense(str(run.model)), texts, "document")
    theirs = SentenceTransformer(str(run.model), device="cpu").encode_document(texts)
    np.testing.assert_allclose(theirs, ours, atol=1e-6)
    rows = load_file(run.model / "0_StaticEmbedding" / "model.safetensors")["embedding.weight"]
    assert not rows[0].any()
    output = tmp_path / "scores.json"
    command = ["evaluate", str(run.model), "--data", str(beir), "--output", str(output)]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert output.is_file()
