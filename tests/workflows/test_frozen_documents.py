"""Query-only tuning and ADORE: documents stay where they were, to the bit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from embedtrain.data.sources import load_task
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.metrics import mean_scores, score_ranking
from embedtrain.models.build import load_dense
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.training.frozen_documents import FrozenDocuments
from embedtrain.training.guide import StoredVectors
from embedtrain.training.validation import encode_task, rank_task
from embedtrain.types import Relevance
from embedtrain.workflows.train import resume, train


@pytest.fixture(scope="module")
def recipe(bert, pairs, beir, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "adore.yaml"
    path.write_text(
        f"""\
description: Tiny.
data: {{sources: [{{path: {pairs}}}], num_negatives: 0}}
model: {{backbone: {bert}}}
objective: {{name: rank_net, weights: ndcg}}
frozen_documents: {{path: {beir}, split: test, live_negatives: 6}}
trainer: {{steps: 4, batch_size: 6, learning_rate: 1.0e-2, warmup_ratio: 0.0, log_every: 1}}
evaluation: {{path: {beir}, split: test}}
"""
    )
    return path


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory) -> Path:
    return train(load_recipe(recipe), tmp_path_factory.mktemp("adore") / "run").path


def test_queries_move_and_documents_do_not(run, bert, sentences):
    tuned, start = load_dense(str(run / "model")), load_dense(bert)
    texts = sentences[:9]
    documents = [encode_texts(model, texts, "document") for model in (tuned, start)]
    queries = [encode_texts(model, texts, "query") for model in (tuned, start)]
    assert np.array_equal(*documents)
    assert np.abs(queries[0] - queries[1]).max() > 1e-3
    assert load_file(run / "document_model/model.safetensors").keys()


def test_the_run_was_measured_with_both_models(run, beir):
    task = load_task(str(beir), "test")
    encoded = encode_task(load_dense(str(run / "model")), task)
    documents = encode_texts(load_dense(str(run / "document_model")), task.documents, "document")
    assert np.array_equal(encoded.documents, documents)
    score = mean_scores(score_ranking(rank_task(task, encoded), ["ndcg_at_10"]))["ndcg_at_10"]
    stored = json.loads((run / "evaluation.json").read_text())["after"]["ndcg_at_10"]["value"]
    assert stored == pytest.approx(score)


def test_a_query_model_is_no_start_for_training_both_sides(run, recipe, tmp_path):
    overrides = [f"model.backbone={run / 'model'}", "frozen_documents=null"]
    with pytest.raises(UserError, match="was tuned for queries only"):
        train(load_recipe(recipe, overrides), tmp_path / "run")


def test_a_finished_run_can_be_opened_again(run):
    assert resume(run).path == run


def test_live_negatives_are_the_best_documents_minus_the_known_positives():
    generator = np.random.default_rng(0)
    values = generator.standard_normal((30, 4)).astype(np.float32)
    ids = generator.permutation(1000)[:30].astype(np.int64)
    order = np.argsort(ids)
    frozen = FrozenDocuments(StoredVectors(ids[order], order, values), live_negatives=5)
    query = torch.from_numpy(generator.standard_normal((2, 4)).astype(np.float32))
    best = np.argsort(-(query.numpy() @ values.T), axis=1, kind="stable")
    relevance = Relevance(
        query_ids=torch.tensor([1, 2]),
        document_ids=torch.from_numpy(ids[[best[0, 0], best[1, 3], best[1, 9]]]),
        owners=torch.tensor([0, 1, 1]),
        positives=torch.tensor([[0, -1], [1, 2]]),
        known_positives=torch.from_numpy(np.array([[ids[best[0, 2]]], [-1]])),
    )
    found = frozen.with_live_negatives(query, relevance)
    first = [best[0, 0], *best[0, [1, 3, 4, 5, 6]]]
    second = [best[1, 3], best[1, 9], *best[1, [0, 1, 2, 4, 5]]]
    assert found.document_ids.tolist() == ids[[*first, *second]].tolist()
    assert found.owners.tolist() == [0] * 6 + [1] * 7
    assert found.positives.tolist() == [[0, -1], [6, 7]]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("refresh={path: x, every_steps: 2}", "drop refresh"),
        ("model.kind=late_interaction", "keeps one vector per document"),
    ],
)
def test_what_does_not_go_together_is_refused(recipe, tmp_path, override, message):
    with pytest.raises(UserError, match=message):
        train(load_recipe(recipe, [override]), tmp_path / "run")
