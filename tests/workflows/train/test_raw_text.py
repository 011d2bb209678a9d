"""Training on rows that sources make of plain text, of several kinds and objectives."""

import json

import numpy as np
import pytest
import torch
from sentence_toys import sentence

from embedtrain.encoding.texts import encode_texts
from embedtrain.models.build import load_dense
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.workflows.train import train


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Documents of six sentences of five words each."""
    generator, path = torch.Generator().manual_seed(0), tmp_path_factory.mktemp("text") / "c.jsonl"
    texts = [
        ". ".join(sentence(generator, 5).capitalize() for _ in range(6)) + "." for _ in range(8)
    ]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def test_positions_and_runs_of_neighbours_train_one_model(corpus, bert, tmp_path):
    places = {"pairs": "position", "objective": {"name": "pair_classification"}}
    thought = {"pairs": "neighbours", "same_document": "negative", "order": "consecutive"}
    sources = [{"path": str(corpus), **source} for source in (places, thought)]
    sides = {side: {"length": 16} for side in ("query", "document")}
    recipe = {
        "data": {"sources": sources, "num_positives": 2},
        "model": {"backbone": bert, "pair_classes": 5, **sides},
        "objective": {"name": "info_nce"},
        "trainer": {"steps": 4, "batch_size": 6, "learning_rate": 5e-3},
    }
    run = train(load_recipe(recipe), tmp_path / "run")
    start, end = (
        encode_texts(load_dense(str(path)), ["red cat"], "query") for path in (bert, run.model)
    )
    assert np.abs(start - end).max() > 1e-3
