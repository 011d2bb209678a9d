"""The hand-worked example of what reranking can do: a relevant document that was not found counts as missed."""

import numpy as np
import pytest
from pair_toys import save_classifier

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.encoding.cross_encoder import CrossEncoder
from embedtrain.evaluation.measures.metrics import mean_scores
from embedtrain.evaluation.measures.second_stage import grades, reorder
from embedtrain.models.cross_encoder.build import load_cross_encoder
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.training.validation import score_lists, score_reranked

IDS = ["d1", "d2", "d3", "d9"]


@pytest.fixture
def task():
    qrels = {"q": {"d1": 1, "d9": 1}}
    return RetrievalTask("toy", ["q"], ["query"], IDS, [f"text {i}" for i in IDS], qrels, "")


FOUND = SearchResult(np.array([[1, 0, 2, -1]]), np.array([[3, 2, 1, -np.inf]], np.float32))


def test_missed_documents_stay_in_the_ideal(task):
    found = mean_scores(score_lists(task, FOUND))
    assert found["ndcg_at_10"] == pytest.approx(0.386853, abs=1e-6)
    assert (found["mrr_at_10"], found["recall_at_10"]) == (0.5, 0.5)
    best = reorder(FOUND, grades(task.qrels, ["q"], IDS, FOUND), 4)
    assert mean_scores(score_lists(task, best))["ndcg_at_10"] == pytest.approx(0.613147, abs=1e-6)


def test_the_models_order_stands_beside_the_first(task, monkeypatch, tmp_path):
    model = load_cross_encoder(str(save_classifier(tmp_path / "m", "bert")))
    known = {"text d1": 0.9, "text d2": 0.5, "text d3": 0.1}
    monkeypatch.setattr(
        CrossEncoder, "logits", lambda _, pairs: np.array([known[text] for _, text in pairs])
    )
    found = mean_scores(score_reranked(model, task, FOUND))
    assert found["ndcg_at_10"] == pytest.approx(0.613147, abs=1e-6)
    assert (found["mrr_at_10"], found["first_mrr_at_10"]) == (1.0, 0.5)
    known = dict.fromkeys(known, 0.0)
    tied = mean_scores(score_reranked(model, task, FOUND))
    assert tied["ndcg_at_10"] == found["first_ndcg_at_10"], "equal scores keep the first order"
