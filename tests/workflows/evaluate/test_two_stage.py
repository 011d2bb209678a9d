"""The workflow behind `embedtrain evaluate --rerank`."""

import json

import numpy as np
import pytest
from page_reader import read
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.encoding.pair_work import PairWork
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.metrics import score_run
from embedtrain.evaluation.results.pareto import load_points
from embedtrain.evaluation.results.ranking_file import read_run
from embedtrain.evaluation.results.result import load_result
from embedtrain.evaluation.tasks.retrieval import METRICS
from embedtrain.workflows.evaluate import two_stage as workflow
from embedtrain.workflows.evaluate.report import write_report
from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks
from embedtrain.workflows.evaluate.two_stage import Reranking, evaluate_two_stages
from embedtrain.workflows.prepare import load_task
from embedtrain.workflows.search import Searcher


class Written:
    """Scores pairs by a function of their texts."""

    precision = "fp32"

    def __init__(self, score, name):
        self.work, self.score, self.name = PairWork(), score, name

    def key(self):
        return self.name

    def logits(self, pairs):
        self.work.pairs += len(pairs)
        return np.array([float(self.score(*pair)) for pair in pairs])


@pytest.fixture
def use(monkeypatch, tmp_path):
    """Let a function of two texts be the second stage; each test has a cache of its own."""
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))

    def give(score, name="toy"):
        scorer = Written(score, name)
        monkeypatch.setattr(workflow, "open_pair_scorer", lambda *_, **__: scorer)
        monkeypatch.setattr(workflow, "detect_kind", lambda _: "cross_encoder")
        return scorer

    return give


def run(first, beir, output=None, *, efficiency=False, price=None, **settings):
    wish = Wish([str(beir)], efficiency=efficiency, price_per_hour=price)
    return evaluate_two_stages(first, wish, Reranking("toy", **settings), output)[0]


def relevance(beir):
    task = load_task(str(beir), "test")
    texts = dict(zip(task.document_ids, task.documents, strict=True))
    queries = dict(zip(task.query_ids, task.queries, strict=True))
    return {
        (queries[query], texts[document]): grade
        for query, own in task.qrels.items()
        for document, grade in own.items()
    }


@pytest.mark.parametrize("first", ["bert", "late_interaction", "bm25"])
def test_who_knows_the_answers_reaches_the_ceiling(first, beir, use, request):
    name = first if first == "bm25" else request.getfixturevalue(first)
    known = relevance(beir)
    use(lambda *pair: known.get(pair, 0))
    result = run(name, beir, top=20)
    found = {metric: interval.value for metric, interval in result.metrics.items()}
    assert found == pytest.approx(result.two_stage.ceiling)
    assert result.two_stage.worse == 0


def test_who_says_nothing_leaves_the_first_stage_exactly(bert, beir, use, tmp_path):
    use(lambda *_: 0.25)
    result = run(bert, beir, tmp_path / "two.json", top=20)
    (alone,) = evaluate_tasks(bert, Wish([str(beir)], efficiency=False))
    assert result.per_query == alone.per_query
    assert result.two_stage.baseline == alone.metrics
    for paired in result.comparison.metrics.values():
        assert (paired.difference, paired.p_value) == (0.0, 1.0)
    assert (result.two_stage.better, result.two_stage.worse, result.two_stage.worst) == (0, 0, {})


def test_the_written_ranking_has_the_scores_of_the_result(bert, beir, use, tmp_path):
    use(lambda query, document: len(set(query) & set(document)))  # many ties
    result = run(bert, beir, tmp_path / "two.json", top=15)
    task = load_task(str(beir), "test")
    ranked = read_run(tmp_path / "two.trec")
    assert score_run(task.qrels, ranked, METRICS) == result.per_query
    assert load_result(tmp_path / "two.json") == result


def test_every_depth_of_one_pass_is_that_of_a_run_of_its_own(bert, beir, use):
    use(hash_of)
    whole = run(bert, beir, top=25)
    assert [one.depth for one in whole.two_stage.depths] == [10, 20, 25]
    for one in whole.two_stage.depths:
        alone = run(bert, beir, top=one.depth)
        assert one.metrics == {name: found.value for name, found in alone.metrics.items()}
        assert one.difference == alone.comparison.metrics[METRICS[0]]


def hash_of(query, document):
    return sum(ord(sign) * (1 + place % 7) for place, sign in enumerate(query + document)) % 101


def test_a_ranking_from_a_file_is_a_first_stage(bert, beir, use, tmp_path):
    evaluate_tasks(bert, Wish([str(beir)], efficiency=False), tmp_path / "first.json")
    use(hash_of)
    ours = run(bert, beir, top=20)
    other = run(f"run:{tmp_path / 'first.trec'}", beir, top=20)
    assert ours.per_query == other.per_query
    query = next(iter(load_task(str(beir), "test").qrels))
    (tmp_path / "odd.trec").write_text(f"{query}\tQ0\tnowhere\t1\t2.0\tx\n")
    with pytest.raises(UserError, match=r"names a document that the data lack.*got 'nowhere'"):
        run(f"run:{tmp_path / 'odd.trec'}", beir)
    (tmp_path / "odd.trec").write_text("nobody\tQ0\tnowhere\t1\t2.0\tx\n")
    with pytest.raises(UserError, match="lists none of the queries"):
        run(f"run:{tmp_path / 'odd.trec'}", beir)


def test_a_second_evaluation_scores_no_pair_and_another_first_stage_only_new_ones(bert, beir, use):
    scorer = use(hash_of)
    first = run(bert, beir, top=10)
    asked = scorer.work.pairs
    assert run(bert, beir, top=10).per_query == first.per_query
    assert scorer.work.pairs == asked
    run("bm25", beir, top=10)
    deeper = scorer.work.pairs - asked
    use(hash_of, "another template")
    assert deeper > 0


def test_costs_are_told_by_depth_and_pareto_takes_them(bert, beir, use, tmp_path):
    use(hash_of)
    result = run(bert, beir, tmp_path / "two.json", top=20, efficiency=True, price=3.6)
    _, points = load_points([tmp_path / "two.json"])
    assert [one.name for one in points] == ["two, first stage", "two, top 10", "two, top 20"]
    assert points[0].quality == result.two_stage.baseline["ndcg_at_10"].value
    assert [one.costs["latency"] for one in points[1:]] == [
        one.seconds_per_query for one in result.two_stage.depths
    ]
    stages = result.two_stage
    seconds = [one.seconds_per_query for one in stages.depths]
    assert seconds == sorted(seconds)
    assert seconds[-1] == result.efficiency.query_latency.mean_seconds
    assert stages.cost.price_per_thousand_queries == pytest.approx(seconds[-1])
    assert stages.cost.num_scored == stages.cost.num_pairs
    again = run(bert, beir, top=20, efficiency=True)
    assert again.two_stage.cost.num_scored == 0
    assert again.two_stage.cost.pairs_per_second > 0


def test_the_report_lists_depths_and_draws_quality_against_time(bert, beir, use, tmp_path):
    use(hash_of)
    run(bert, beir, tmp_path / "two.json", top=20, efficiency=True)
    page = write_report([tmp_path / "two.json"], tmp_path / "page.html")
    text = " ".join(read(page).texts)
    assert "Results ordered anew" in text
    assert "none: the first stage" in text
    assert "seconds per query" in text
    assert "pairs cut" not in text, "the toy counts no tokens"


def test_a_search_orders_its_first_results_anew(bert, beir):
    known = relevance(beir)
    scorer = Written(lambda *pair: known.get(pair, 0), "toy")
    task = load_task(str(beir), "test")
    for model in (bert, "bm25"):
        plain = Searcher(model, str(beir), "test").search(task.queries[0], 8)
        ordered = Searcher(model, str(beir), "test", second=scorer, depth=4)
        hits = ordered.search(task.queries[0], 8)
        assert {hit.document_id for hit in hits[:4]} == {hit.document_id for hit in plain[:4]}
        assert [hit.document_id for hit in hits[4:]] == [hit.document_id for hit in plain[4:]]
        found = [known.get((task.queries[0], hit.text), 0) for hit in hits[:4]]
        assert found == sorted(found, reverse=True)
        assert ordered.search(task.queries[0], 2) == hits[:2]


def test_a_blend_of_nothing_is_the_first_stage_and_of_all_the_second(bert, beir, use):
    use(hash_of)
    second = run(bert, beir, top=20)
    assert run(bert, beir, top=20, blend=1.0).per_query == second.per_query
    none = run(bert, beir, top=20, blend=0.0)
    assert none.two_stage.better == none.two_stage.worse == 0
    some = run(bert, beir, top=20, blend=0.5)
    assert some.model.settings == {"top": 20, "blend": 0.5}


def test_queries_out_of_reach_are_told(bert, beir, use):
    use(hash_of)
    shallow, deep = (run(bert, beir, top=top).two_stage for top in (1, 20))
    assert shallow.reachable < deep.reachable <= 1
    assert deep.reachable_metrics["recall_at_100"] >= deep.baseline["recall_at_100"].value


def test_a_classifier_orders_results_whatever_its_batch(
    bert, cross_encoder, beir, monkeypatch, tmp_path
):
    results = []
    for size in (3, 32):
        monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / str(size)))
        wish = Wish([str(beir)], efficiency=False)
        second = Reranking(cross_encoder, top=12, batch_size=size)
        results.append(evaluate_two_stages(bert, wish, second)[0])
    assert results[0].per_query == results[1].per_query
    assert results[0].two_stage.second.settings["kind"] == "cross_encoder"


@pytest.mark.parametrize("second", ["bert", "late_interaction"])
def test_a_model_of_vectors_is_a_second_stage(second, beir, request):
    model = request.getfixturevalue(second)
    wish = Wish([str(beir)], efficiency=False)
    (result,) = evaluate_two_stages(model, wish, Reranking(model, top=30))
    assert result.two_stage.better == result.two_stage.worse == 0, "it orders as it searches"


def test_what_orders_lists_sees_each_list_whole_and_nothing_else(beir, use):
    known, lists = relevance(beir), []
    scorer = use(lambda *pair: known.get(pair, 0))
    plain = scorer.logits
    scorer.logits = lambda pairs: lists.append(list(pairs)) or plain(pairs)
    for _ in range(2):  # nothing is kept
        lists.clear()
        result = run("bm25", beir, top=4, kind="pairwise")
        assert {len(one) for one in lists} == {4}
        assert all(len({query for query, _ in one}) == 1 for one in lists)
        assert len(lists) == len(result.per_query["ndcg_at_10"])
    found = {metric: interval.value for metric, interval in result.metrics.items()}
    assert found == pytest.approx(result.two_stage.ceiling)
    assert [one.depth for one in result.two_stage.depths] == [4]
    assert result.two_stage.calibration is None


@pytest.mark.parametrize("kind", ["answer", "attribution"])
def test_what_needs_an_answer_is_no_second_stage(kind, beir):
    with pytest.raises(UserError, match=f"needs an answer to each query; got '{kind}'"):
        evaluate_two_stages("bm25", Wish([str(beir)]), Reranking("any", kind))


def test_the_command_prints_depths_and_refuses_what_does_not_go_together(
    bert, cross_encoder, beir, tmp_path
):
    output = tmp_path / "two.json"
    words = ["evaluate", bert, "--data", str(beir), "--rerank", cross_encoder, "--top", "20"]
    told = CliRunner().invoke(app, [*words, "--no-efficiency", "--output", str(output)])
    assert told.exit_code == 0, told.output
    assert "none: the first stage" in told.output
    assert json.loads(output.read_text())["two_stage"]["top"] == 20
    refused = CliRunner().invoke(app, [*words, "--baseline", str(output)])
    assert isinstance(refused.exception, UserError)
    assert "compares with its own first stage" in str(refused.exception)
    words = ["search", bert, "cat", "--data", str(beir), "--rerank", cross_encoder]
    assert CliRunner().invoke(app, words).exit_code == 0
    refused = CliRunner().invoke(app, ["search", "bm25", "cat", *words[3:], "--late-chunks", "9"])
    assert "for a first stage that is a model" in str(refused.exception)
    for alone in (["evaluate", bert, "--top", "7"], ["search", bert, "cat", "--depth", "7"]):
        refused = CliRunner().invoke(app, [*alone, "--data", str(beir)])
        assert "Add --rerank MODEL" in str(refused.exception)
