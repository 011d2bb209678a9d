"""The recipe that trains a retriever and a reranker, on a tiny model: every stage runs, and four systems are measured."""

import json

from embedtrain.resources import find_recipe
from embedtrain.workflows.pipeline import load_pipeline, run_pipeline

RECIPE = find_recipe("pipelines/retrieve_and_rerank")
MEASURED = ("scores", "reranked", "distilled", "distilled-reranked")


def test_four_systems_are_trained_and_compared(bert, pairs, beir, tmp_path):
    trained = ("retriever", "reranker", "student")
    quick = "{steps: 2, batch_size: 4, learning_rate: 1.0e-3, precision: fp32}"
    overrides = [
        *(f"{name}.trainer={quick}" for name in trained),
        *(f"{name}.model.backbone={bert}" for name in trained[:2]),
        "retriever.model.document.length=48",
        "reranker.model.length=48",
        f"retriever.data.sources=[{{path: {pairs}}}]",
        f"mined.data={beir}",
        "mined.split=test",
        "mined.settings.rule.kind=none",
        *(f"{name}.path={beir}" for name in MEASURED),
    ]
    run = run_pipeline(load_pipeline(RECIPE, overrides), tmp_path / "run")
    results = {name: json.loads((run / name / "scores.json").read_text()) for name in MEASURED}
    assert results["reranked"]["two_stage"]["second"]["settings"]["kind"] == "cross_encoder"
    assert results["reranked"]["model"]["settings"]["blend"] == 0.5
    scored = (run / "scored" / "scored.jsonl").read_text().splitlines()
    for scores in (json.loads(line)["scores"] for line in scored):
        assert abs(sum(scores)) < 1e-3  # of both models' z-scores
    first = results["reranked"]["two_stage"]["baseline"]["ndcg_at_10"]
    assert first == results["scores"]["ndcg_at_10"]
    assert results["distilled"]["comparison"]["baseline"].endswith("scores/scores.json")
    weights = [one["model"]["weights"] for one in results.values()]
    assert len(set(weights)) == len(MEASURED)
