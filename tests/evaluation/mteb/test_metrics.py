"""Our metrics against mteb's on the same runs, ties and all."""

import warnings

import numpy as np
import pytest

from embedtrain.evaluation.measures.metrics import mean_scores, score_run

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("mteb")
    from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores

pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.parametrize("seed", range(20))
def test_metrics_equal_those_of_mteb_on_the_same_run(seed):
    rng = np.random.default_rng(seed)
    documents = [f"d{number}" for number in range(40)]
    qrels, run = {}, {}
    for number in range(12):
        judged = rng.choice(documents, size=6, replace=False)
        labels = rng.integers(0, 3, size=6)
        labels[0] = 1
        qrels[f"q{number}"] = dict(zip(judged.tolist(), labels.tolist(), strict=True))
        scores = rng.integers(0, 9, size=40) / 8  # many ties
        run[f"q{number}"] = dict(zip(documents, scores.tolist(), strict=True))
    theirs = calculate_retrieval_scores(run, qrels, [5, 10, 100])
    for kind in ("ndcg", "map", "recall", "precision"):
        found = getattr(theirs, kind)
        for cutoff in (5, 10, 100):
            metric = f"{kind}_at_{cutoff}"
            ours = mean_scores(score_run(qrels, run, [metric]))[metric]
            key = next(k for k in found if k.lower().endswith(f"@{cutoff}"))
            assert ours == pytest.approx(found[key], abs=1e-5)
