"""A guide's vectors reach the batch by text id, in a real run."""

import numpy as np
import torch

from embedtrain.data.examples import SourceConfig
from embedtrain.data.sources import open_source
from embedtrain.data.tokenized import text_id
from embedtrain.doctor import diagnose
from embedtrain.guide import encode_guide
from embedtrain.models.build import load_dense
from embedtrain.models.encoding import encode_texts
from embedtrain.recipe import load_recipe
from embedtrain.train import train
from embedtrain.training.guide import GuideConfig


def test_vectors_are_found_by_the_ids_of_their_texts(bert, pairs, tmp_path):
    source = SourceConfig(path=str(pairs))
    guide = encode_guide(GuideConfig(model=bert), (source,), tmp_path)
    examples = list(open_source(source).examples())[:7]
    queries = [example.query for example in examples]
    negatives = [example.negatives[0] for example in examples]
    model = load_dense(bert)
    for store, texts, side in (
        (guide.queries, queries, "query"),
        (guide.documents, negatives, "document"),
    ):
        found = store.look_up(torch.tensor([text_id(text) for text in texts]))
        assert np.allclose(found.numpy(), encode_texts(model, texts, side), atol=1e-6)


def test_gist_trains_with_a_guide_and_the_doctor_agrees(bert, bert_with_dropout, pairs, tmp_path):
    path = tmp_path / "gist.yaml"
    path.write_text(
        f"""\
description: Tiny.
data: {{sources: [{{path: {pairs}}}]}}
model: {{backbone: {bert_with_dropout}}}
guide: {{model: {bert}}}
objective: {{name: gist, temperature: 0.1}}
trainer: {{steps: 3, batch_size: 8, chunk_tokens: 60, rematerialize: true, log_every: 1}}
"""
    )
    recipe = load_recipe(path)
    assert diagnose(recipe).healthy
    run = train(recipe, tmp_path / "run")
    assert "train/guided_ratio" in run.metrics.read_text()


def test_a_guide_that_nothing_uses_is_refused_and_so_is_its_lack(bert, pairs, tmp_path):
    import pytest

    from embedtrain.errors import UserError

    text = f"description: x\ndata: {{sources: [{{path: {pairs}}}]}}\nmodel: {{backbone: {bert}}}\ntrainer: {{steps: 1}}\n"
    (tmp_path / "a.yaml").write_text(text + f"guide: {{model: {bert}}}\n")
    with pytest.raises(UserError, match="objective info_nce has no use for guide"):
        load_recipe(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text(text + "objective: {name: gist}\n")
    with pytest.raises(UserError, match="objective gist needs guide"):
        load_recipe(tmp_path / "b.yaml")
