"""The metrics against hand-worked values, pytrec_eval and trec_eval's own golden files."""

import time
from itertools import permutations

import numpy as np
import pytest
import pytrec_eval
from places import SHARED

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.metrics import (
    mean_scores,
    rank_arrays,
    rank_run,
    score_expected,
    score_ranking,
    score_run,
    tied_boundary_ratio,
)

GOLDEN = SHARED / "reference/trec_eval"
TREC_NAMES = {
    "ndcg_at": "ndcg_cut",
    "map_at": "map_cut",
    "recall_at": "recall",
    "precision_at": "P",
}


@pytest.mark.parametrize("score_of_a", [1.0, 1.0 + 1e-9])
def test_scores_that_are_equal_in_float32_are_ordered_by_descending_document_id(score_of_a):
    scored = score_run(
        {"q": {"a": 1, "b": 0}},
        {"q": {"a": score_of_a, "b": 1.0}},
        ["ndcg_at_1", "ndcg_at_2", "mrr_at_2"],
    )
    assert scored["ndcg_at_1"]["q"] == 0.0
    assert scored["ndcg_at_2"]["q"] == pytest.approx(0.63093, abs=1e-5)
    assert scored["mrr_at_2"]["q"] == 0.5


def test_a_negative_label_gains_nothing_and_gain_is_linear():
    scored = score_run(
        {"q": {"a": 3, "b": 2, "c": -1}},
        {"q": {"c": 3.0, "a": 2.0, "b": 1.0}},
        ["ndcg_at_3", "map_at_3", "recall_at_3", "precision_at_3"],
    )
    assert scored["ndcg_at_3"]["q"] == pytest.approx(0.678762, abs=1e-6)
    assert scored["map_at_3"]["q"] == pytest.approx(0.583333, abs=1e-6)
    assert scored["recall_at_3"]["q"] == 1.0
    assert scored["precision_at_3"]["q"] == pytest.approx(2 / 3)


def test_a_judged_query_without_results_counts_as_zero_and_one_without_judgments_is_left_out():
    scored = score_run(
        {"found": {"a": 1}, "missing": {"a": 1}, "nothing relevant": {"a": 0}},
        {"found": {"a": 1.0}, "nothing relevant": {"a": 1.0}, "unjudged": {"a": 1.0}},
        ["ndcg_at_10", "recall_at_10"],
    )
    assert scored["ndcg_at_10"] == {"found": 1.0, "missing": 0.0, "nothing relevant": 0.0}
    assert mean_scores(scored) == {
        "ndcg_at_10": pytest.approx(1 / 3),
        "recall_at_10": pytest.approx(1 / 3),
    }


def test_an_empty_run_scores_zero():
    assert score_run({"q": {"a": 1}}, {}, ["ndcg_at_10", "mrr_at_10", "map_at_10"]) == {
        name: {"q": 0.0} for name in ("ndcg_at_10", "mrr_at_10", "map_at_10")
    }


def test_a_hit_behind_the_cutoff_does_not_count():
    run = {"q": {"x": 3.0, "y": 2.0, "a": 1.0}}
    scored = score_run({"q": {"a": 1}}, run, ["mrr_at_2", "mrr_at_3", "map_at_2", "precision_at_2"])
    assert [values["q"] for values in scored.values()] == [0.0, pytest.approx(1 / 3), 0.0, 0.0]


def random_case(seed):
    """Qrels with several grades and a run with many ties, missing queries and unjudged documents."""
    rng = np.random.default_rng(seed)
    documents = [f"d{number}" for number in rng.permutation(40)]
    qrels, run = {}, {}
    for query in range(rng.integers(1, 6)):
        judged = rng.choice(documents, size=rng.integers(1, 30), replace=False)
        qrels[f"q{query}"] = {str(document): int(rng.integers(-1, 4)) for document in judged}
        found = rng.choice(documents, size=rng.integers(1, 40), replace=False)
        scores = rng.choice([rng.integers(0, 4, len(found)), rng.normal(size=len(found))])
        run[f"q{query}"] = dict(zip(map(str, found), map(float, scores), strict=True))
    return qrels, run


def cut(results, depth):
    """What ``trec_eval -M depth`` keeps."""
    ranked = sorted(
        results, key=lambda document: (np.float32(results[document]), document), reverse=True
    )
    return {document: results[document] for document in ranked[:depth]}


@pytest.mark.parametrize("cutoff", [1, 3, 10, 100])
def test_every_metric_equals_pytrec_eval_on_random_runs_with_ties(cutoff):
    for seed in range(200):
        qrels, run = random_case(seed)
        names = [f"{name}_{cutoff}" for name in TREC_NAMES]
        ours = score_run(qrels, run, [*names, f"mrr_at_{cutoff}"])
        measures = {f"{name}.{cutoff}" for name in TREC_NAMES.values()}
        theirs = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
        # recip_rank has no cut-off of its own, so the run is cut as -M would.
        cut_run = {query: cut(results, cutoff) for query, results in run.items()}
        reciprocal = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(cut_run)
        for query in qrels:
            for ours_name, theirs_name in TREC_NAMES.items():
                expected = theirs[query][f"{theirs_name}_{cutoff}"]
                assert ours[f"{ours_name}_{cutoff}"][query] == pytest.approx(expected, abs=1e-9)
            expected = reciprocal[query]["recip_rank"]
            assert ours[f"mrr_at_{cutoff}"][query] == pytest.approx(expected, abs=1e-9)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"{GOLDEN} is absent")
@pytest.mark.parametrize(
    ("run_file", "golden_file"),
    [("results.test", "out.test.aq"), ("results.trunc", "out.test.aqc")],
)
def test_golden_files_of_trec_eval_are_reproduced(run_file, golden_file):
    qrels, run = {}, {}
    for line in (GOLDEN / "qrels.test").read_text().splitlines():
        query, _, document, label = line.split()
        qrels.setdefault(query, {})[document] = int(label)
    for line in (GOLDEN / run_file).read_text().splitlines():
        query, _, document, _, score = line.split()[:5]
        run.setdefault(query, {})[document] = float(score)
    metric_of_measure = {"recip_rank": "mrr_at_1000", "map": "map_at_1000"}
    for cutoff in (5, 10, 15, 20, 30, 100, 200, 500, 1000):
        for ours_name, theirs_name in TREC_NAMES.items():
            metric_of_measure[f"{theirs_name}_{cutoff}"] = f"{ours_name}_{cutoff}"
    scored = score_run(qrels, run, list(metric_of_measure.values()))
    means = mean_scores(scored)
    compared = 0
    for line in (GOLDEN / golden_file).read_text().splitlines():
        measure, query, value = line.split()
        if measure in metric_of_measure:
            metric = metric_of_measure[measure]
            ours = means[metric] if query == "all" else scored[metric][query]
            assert ours == pytest.approx(float(value), abs=0.5001e-4), (measure, query)
            compared += 1
    assert compared > 100


def test_arrays_give_the_same_scores_as_dictionaries():
    rng = np.random.default_rng(0)
    document_ids = [f"d{number}" for number in rng.permutation(50)]
    query_ids = ["q0", "q1", "unjudged", "q2"]
    indices = np.stack([rng.permutation(50)[:20] for _ in query_ids])
    scores = rng.integers(0, 5, size=indices.shape).astype(np.float32)
    indices[3, 15:] = -1
    qrels = {
        query: {f"d{number}": number % 3 for number in range(0, 50, 4)}
        for query in ("q2", "q1", "q0", "q9")
    }
    run = {
        query: {
            document_ids[index]: float(score)
            for index, score in zip(row, row_scores, strict=True)
            if index >= 0
        }
        for query, row, row_scores in zip(query_ids, indices, scores, strict=True)
    }
    metrics = ["ndcg_at_10", "mrr_at_10", "map_at_20", "recall_at_5", "precision_at_5"]
    ranking = rank_arrays(qrels, query_ids, document_ids, indices, scores)
    assert score_ranking(ranking, metrics) == score_run(qrels, run, metrics)


def test_only_a_tie_across_the_boundary_is_reported():
    qrels = {query: {"a": 1} for query in ("across", "inside", "short", "missing")}
    run = {
        "across": {"a": 3.0, "b": 2.0, "c": 2.0},
        "inside": {"a": 2.0, "b": 2.0, "c": 1.0},
        "short": {"a": 1.0, "b": 1.0},
    }
    assert tied_boundary_ratio(rank_run(qrels, run), cutoff=2) == 0.25
    assert tied_boundary_ratio(rank_run(qrels, run), cutoff=3) == 0.0


def test_expected_scores_are_the_mean_over_all_orders_of_the_tied_results():
    qrels = {"q": {"a": 3, "b": 1, "c": 0, "d": 2}}
    tied = ["a", "b", "c", "e"]
    metrics = ["ndcg_at_3", "recall_at_3", "precision_at_2"]
    ranking = rank_run(qrels, {"q": {"d": 1.0} | dict.fromkeys(tied, 2.0)})
    orders = []
    for order in permutations(tied):
        scores = {document: 9.0 - place for place, document in enumerate(order)}
        orders.append(mean_scores(score_run(qrels, {"q": {"d": 1.0} | scores}, metrics)))
    expected = mean_scores(score_expected(ranking, metrics))
    for name in metrics:
        assert expected[name] == pytest.approx(np.mean([scores[name] for scores in orders]))


def test_expected_scores_without_ties_are_the_scores():
    qrels, run = {"q": {"a": 1}, "r": {"b": 2}}, {"q": {"b": 2.0, "a": 1.0}}
    ranking = rank_run(qrels, run)
    assert score_expected(ranking, ["ndcg_at_10"]) == score_ranking(ranking, ["ndcg_at_10"])


def test_a_score_that_is_nan_is_the_users_mistake_and_names_the_query():
    with pytest.raises(UserError, match=r"query 'q2': a score is NaN\. Check the embeddings"):
        score_run(
            {"q1": {"a": 1}, "q2": {"a": 1}}, {"q1": {"a": 1.0}, "q2": {"a": float("nan")}}, []
        )


@pytest.mark.parametrize("name", ["ndcg", "ndcg_at_0", "ndcg@10", "accuracy_at_10", "ndcg_at_ten"])
def test_an_unknown_metric_is_refused_with_the_known_ones(name):
    with pytest.raises(UserError, match="Use ndcg, mrr, map, recall, precision with a cutoff"):
        score_run({"q": {"a": 1}}, {}, [name])


def test_a_run_of_other_data_is_refused():
    with pytest.raises(UserError, match="shares no query with the qrels; got 'x'"):
        score_run({"q": {"a": 1}}, {"x": {"a": 1.0}}, ["ndcg_at_10"])


def test_empty_qrels_are_refused():
    with pytest.raises(UserError, match="qrels are empty"):
        score_run({}, {"x": {"a": 1.0}}, ["ndcg_at_10"])


def test_a_document_that_a_search_returns_twice_is_refused():
    with pytest.raises(UserError, match="lists a document twice"):
        rank_arrays(
            {"q": {"a": 1}}, ["q"], ["a", "a"], np.array([[0, 1]]), np.ones((1, 2), np.float32)
        )


def test_reciprocal_rank_cannot_be_averaged_over_ties():
    with pytest.raises(UserError, match="cannot be averaged over ties; got 'mrr_at_10'"):
        score_expected(rank_run({"q": {"a": 1}}, {}), ["mrr_at_10"])


def test_scores_beyond_float32_are_infinite_and_tied():
    scored = score_run({"q": {"a": 1}}, {"q": {"a": 1e300, "b": 1e299}}, ["mrr_at_10"])
    assert scored["mrr_at_10"]["q"] == 0.5


def test_a_full_evaluation_of_two_thousand_queries_takes_under_two_seconds_of_cpu():
    rng = np.random.default_rng(0)
    query_ids = [f"q{number}" for number in range(2000)]
    document_ids = [f"document-{number}" for number in range(16_000)]
    indices = np.stack([rng.choice(16_000, 100, replace=False) for _ in query_ids])
    scores = rng.normal(size=indices.shape).astype(np.float32)
    qrels = {
        query: {document_ids[row[3]]: 1} for query, row in zip(query_ids, indices, strict=True)
    }
    start = time.process_time()
    ranking = rank_arrays(qrels, query_ids, document_ids, indices, scores)
    score_ranking(ranking, ["ndcg_at_10", "mrr_at_10", "map_at_100", "recall_at_100"])
    assert time.process_time() - start < 2.0


def test_expected_scores_of_a_short_list_are_not_spread_over_the_places_behind_it():
    qrels = {"a": {"x": 1}, "b": {"x": 1}}
    ranking = rank_run(qrels, {"a": {"x": 1.0}, "b": {"x": 1.0, "y": 0.5, "z": 0.2}})
    assert score_expected(ranking, ["ndcg_at_10"]) == {"ndcg_at_10": {"a": 1.0, "b": 1.0}}
