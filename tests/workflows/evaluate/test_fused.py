"""The workflow behind `embedtrain evaluate --with`."""

import json
import shutil

import numpy as np
import pytest
from page_reader import read
from pydantic import ValidationError
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.encoding.pair_work import PairWork
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.metrics import score_run
from embedtrain.evaluation.results.ranking_file import read_run
from embedtrain.evaluation.results.report import render_text
from embedtrain.evaluation.results.result import load_result
from embedtrain.evaluation.tasks.retrieval import METRICS
from embedtrain.workflows.evaluate import systems, two_stage
from embedtrain.workflows.evaluate.fused import evaluate_fused
from embedtrain.workflows.evaluate.report import write_report
from embedtrain.workflows.evaluate.systems import Fusing
from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks
from embedtrain.workflows.evaluate.two_stage import Reranking, evaluate_two_stages
from embedtrain.workflows.pipeline import Pipeline, run_pipeline
from embedtrain.workflows.prepare import load_task
from embedtrain.workflows.search import Searcher


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def others(beir, tmp_path_factory):
    """The corpus, whose split other judges queries of its own."""
    folder = shutil.copytree(beir, tmp_path_factory.mktemp("others") / "beir")
    corpus = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    rows = [{"_id": f"o{number}", "text": corpus[number]["text"][-20:]} for number in range(10, 20)]
    with (folder / "queries.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    judgments = "".join(f"o{number}\td{number}\t1\n" for number in range(10, 20))
    (folder / "qrels" / "other.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judgments}")
    return folder


def run(first, data, *with_, output=None, efficiency=False, baseline=None, **settings):
    wish = Wish([str(data)], efficiency=efficiency, baseline=baseline)
    return evaluate_fused(first, wish, Fusing(with_, **settings), output)[0]


def test_systems_of_every_kind_are_fused(bert, late_interaction, beir, tmp_path):
    evaluate_tasks(bert, Wish([str(beir)], efficiency=False), tmp_path / "first.json")
    ranking = f"run:{tmp_path / 'first.trec'}"
    result = run(bert, beir, "bm25:k1=0.9", late_interaction, ranking, output=tmp_path / "all.json")
    assert [one.model.name for one in result.fusion.parts] == [
        bert,
        "bm25",
        late_interaction,
        "first",
    ]
    assert result.fusion.parts[1].model.settings["k1"] == 0.9
    assert result.fusion.parts[0].metrics == result.fusion.parts[3].metrics
    task = load_task(str(beir), "test")
    ranked = read_run(tmp_path / "all.trec")
    assert score_run(task.qrels, ranked, METRICS) == result.per_query
    assert load_result(tmp_path / "all.json") == result


def test_words_or_a_ranking_alone_are_measured_as_the_part_they_would_be(bert, beir, tmp_path):
    part = run(bert, beir, "bm25").fusion.parts[1]
    words = ["evaluate", "--data", str(beir), "--no-efficiency", "--output"]
    done = CliRunner().invoke(app, [*words, str(tmp_path / "bm25.json"), "bm25"])
    assert done.exit_code == 0, done.exception
    alone = load_result(tmp_path / "bm25.json")
    assert alone.metrics == part.metrics
    again = run(f"run:{tmp_path / 'bm25.trec'}", beir)
    assert again.per_query == alone.per_query
    kept = CliRunner().invoke(app, [*words, str(tmp_path / "new.json"), "bm25", "--keep", "0.5"])
    assert "--keep is for one model" in str(kept.exception)
    assert not (tmp_path / "new.json").exists()


def test_the_weights_1_and_0_are_the_systems_themselves(bert, beir):
    (alone,) = evaluate_tasks(bert, Wish([str(beir)], efficiency=False))
    first = run(bert, beir, "bm25", weights=(1.0, 0.0))
    assert first.per_query == alone.per_query
    second = run(bert, beir, "bm25", weights=(0.0, 1.0))
    words = run("bm25", beir, bert, weights=(1.0, 0.0))
    assert second.per_query == words.per_query
    assert first.fusion.parts[0].difference.difference == 0
    assert (first.fusion.parts[0].better, first.fusion.parts[0].worse) == (0, 0)
    assert first.fusion.parts[1].metrics == second.metrics


def test_queries_that_one_system_answers_alone_are_counted(beir, tmp_path):
    lines = {"one": [], "two": []}
    for number in range(10):
        lines["one"].append((number, number if number < 7 else 29))
        lines["two"].append((number, number if number >= 4 else 28))
    for name, found in lines.items():
        text = "".join(f"q{query}\tQ0\td{document}\t1\t1.0\tx\n" for query, document in found)
        (tmp_path / f"{name}.trec").write_text(text)
    result = run(f"run:{tmp_path / 'one.trec'}", beir, f"run:{tmp_path / 'two.trec'}")
    assert [part.alone for part in result.fusion.parts] == [0.4, 0.3]
    assert result.fusion.together == 1
    assert result.metrics["recall_at_100"].value == 1
    assert [part.better for part in result.fusion.parts] == [3, 4]
    assert result.fusion.parts[0].below_best is None
    assert result.fusion.parts[1].below_best == 1.0, "as good as the first"


def test_learned_weights_are_told_beside_equal_ones(bert, beir, tmp_path):
    result = run(bert, beir, "bm25", rule="tuned", output=tmp_path / "tuned.json")
    tuning = result.fusion.tuning
    assert result.fusion.weights is None
    assert len(tuning.folds) == 5
    assert all(sum(one) == pytest.approx(1) for one in [*tuning.folds, tuning.weights])
    equal = run(bert, beir, "bm25")
    assert tuning.equal == {name: one.value for name, one in equal.metrics.items()}
    gain = result.metrics["ndcg_at_10"].value - equal.metrics["ndcg_at_10"].value
    assert tuning.difference.difference == pytest.approx(gain)
    assert load_result(tmp_path / "tuned.json") == result
    text = " ".join(render_text(result).split())
    assert "each query under weights learned on other folds" in text
    assert "--weights" in text


def test_weights_are_learned_on_another_split(bert, others):
    result = run(bert, others, "bm25", rule="tuned", tune_on="other")
    assert result.fusion.tuning.folds == []
    assert result.fusion.tuning.queries == "other"
    assert result.fusion.weights == result.fusion.tuning.weights
    told = run(bert, others, "bm25", weights=tuple(result.fusion.weights))
    assert told.per_query == result.per_query


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tune_on": "dev"}, "--tune-on holds a query that is measured"),
        ({"tune_on": "none"}, "none"),
        ({}, "needs 10 queries or clusters for 5 folds; got 2"),
    ],
)
def test_queries_that_teach_no_weights_are_refused_before_anything_searches(
    settings, message, others, tmp_path, monkeypatch
):
    folder = shutil.copytree(others, tmp_path / "beir")
    if not settings:  # five queries of one text each
        lines = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
        rows = [row | {"text": f"Text {place % 2}"} for place, row in enumerate(lines)]
        (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(systems, "find_first", None)
    with pytest.raises(UserError, match=message):
        run("bm25", folder, "bm25:k1=0.9", rule="tuned", **settings)


def test_costs_add_up_and_parts_are_written(bert, beir, tmp_path):
    result = run(bert, beir, "bm25", efficiency=True, save_runs=tmp_path / "parts")
    bytes_of_each = [part.bytes_per_document for part in result.fusion.parts]
    assert result.efficiency.bytes_per_document == pytest.approx(sum(bytes_of_each))
    each = [part.seconds_per_query for part in result.fusion.parts]
    whole = sum(each) + result.fusion.seconds_per_query
    assert result.efficiency.query_latency.mean_seconds == pytest.approx(whole)
    files = sorted(path.name for path in (tmp_path / "parts").iterdir())
    assert [name.rsplit("-", 1)[-1] for name in files if name.endswith("trec")][1] == "bm25.trec"
    saved = load_result(tmp_path / "parts" / next(name for name in files if "bm25.json" in name))
    assert saved.metrics == result.fusion.parts[1].metrics
    compared = run(bert, beir, "bm25", baseline=tmp_path / "parts" / files[0])
    assert compared.comparison.metrics["ndcg_at_10"] == result.fusion.parts[0].difference


class Knows:
    """Scores a pair by whether the query begins the document."""

    precision = "fp32"

    def __init__(self):
        self.work = PairWork()

    def key(self):
        return "knows"

    def logits(self, pairs):
        return np.array([float(document.startswith(query)) for query, document in pairs])


def test_a_fused_list_is_ordered_anew(bert, beir, monkeypatch):
    monkeypatch.setattr(two_stage, "open_pair_scorer", lambda *_, **__: Knows())
    monkeypatch.setattr(two_stage, "detect_kind", lambda _: "cross_encoder")
    wish, fusing = Wish([str(beir)], efficiency=False), Fusing(("bm25",))
    (result,) = evaluate_two_stages(bert, wish, Reranking("toy", top=30), fusing=fusing)
    fused = run(bert, beir, "bm25")
    assert result.two_stage.baseline == fused.metrics
    assert result.fusion == fused.fusion
    assert result.metrics["ndcg_at_10"].value == 1
    assert "fused by sum" in render_text(result)


def test_a_search_shows_where_each_system_has_a_document(bert, beir):
    query = load_task(str(beir), "test").queries[0]
    searcher = Searcher(bert, str(beir), "test", fusing=Fusing(("bm25",), "rrf"))
    hits = searcher.search(query, 4)
    assert [hit.rank for hit in hits] == [1, 2, 3, 4]
    words = Searcher("bm25", str(beir), "test").search(query, 1)[0]
    shown = next(hit for hit in hits if hit.document_id == words.document_id)
    assert shown.places[-1] == f"bm25 #1 ({words.score:.3f})"
    alone = Searcher(bert, str(beir), "test", fusing=Fusing(("bm25",), weights=(1.0, 0.0)))
    plain = Searcher(bert, str(beir), "test").search(query, 4)
    assert [hit.document_id for hit in alone.search(query, 4)] == [hit.document_id for hit in plain]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("evaluate bm25 --data {beir} --fuse rrf", "say how results are fused. Add --with SYSTEM"),
        ("evaluate bm25 --data {beir} --with bm25 --weights 1,x", "are not numbers; got '1,x'"),
        ("evaluate bm25 --data {beir} --with bm25 --weights 1,2,3", "as the 2 systems"),
        ("evaluate bm25 --data {beir} --with bm25 --weights 1,-1", "do not go together"),
        ("evaluate bm25 --data {beir} --with bm25 --fuse raw", "needs weights"),
        ("evaluate bm25 --data {beir} --with bm25 --fuse zipper --weights 1,1", "takes turns"),
        ("evaluate bm25 --data {beir} --with bm25 --fuse tuned --weights 1,1", "tuned learns"),
        ("evaluate bm25 --data {beir} --with bm25 --tune-on dev", "Add --fuse tuned"),
        ("evaluate bm25 --data {beir} --with bm25:k2=1", "k2"),
        ("evaluate bm25 --data {beir} --with bm25:k1=-1", "bm25: k1 is not usable"),
        ("evaluate bm25 --data {beir} --with run:/nowhere.trec", "/nowhere.trec"),
        ("evaluate bm25 --data {beir} --with bm25 --weights inf,1", "are not numbers; got 'inf,1'"),
        ("evaluate bm25 --data {beir} --with bm25:b=2", "b is not usable"),
        ("evaluate bm25 --data {beir} --with bm25:stopwords=xx", "no stopwords of this language"),
        ("evaluate bm25 --data {beir} --with bm25 --dim 8", "--dim is for models; got 'bm25'"),
        ("evaluate run:x --data {beir} --with bm25 --quantize int8", "--quantize is for models"),
        (
            "evaluate bm25 --data {beir} --with bm25 --index int8 --quantize binary",
            "and so does --quantize",
        ),
        (f"evaluate bm25 --data {{beir}} {6 * '--with bm25 '} --fuse tuned", "weighs 2 to 6"),
        ("evaluate run:x --data {beir} --forms mean", "--forms is for systems that search"),
        ("evaluate run:x --data {beir} --feedback 3", "--feedback is for models; got 'run:x'"),
        ("evaluate run:x --data {beir} --units", "--units is for systems that search"),
        ("search bm25 cat --data {beir} --with bm25 --fuse tuned", "no judged queries"),
        ("search bm25 cat --data {beir} --with run:some.trec", "needs systems that search"),
        ("search bm25 --data {beir} --with bm25 --like x.txt", "not for --like"),
    ],
)
def test_what_cannot_be_fused_is_said_in_one_line(command, said, beir):
    result = CliRunner().invoke(app, command.format(beir=beir).split())
    assert isinstance(result.exception, UserError) or result.exit_code == 2, result.output
    shown = str(result.exception) if isinstance(result.exception, UserError) else result.output
    assert said in shown


def test_the_page_shows_the_systems(bert, beir, tmp_path):
    run(bert, beir, "bm25", output=tmp_path / "hybrid.json")
    page = read(write_report([tmp_path / "hybrid.json"], tmp_path / "page.html"))
    text = " ".join(page.texts)
    assert "Systems fused" in text
    assert "fused by sum, 1,000 results of each" in text


def test_a_stage_of_a_pipeline_fuses(bert, beir, tmp_path):
    stage = {"model": bert, "path": str(beir), "fused_with": ["bm25"], "weights": [1, 0.5]}
    pipeline = Pipeline(description="fused", stages=[{"name": "scores", "evaluate": stage}])
    result = load_result(run_pipeline(pipeline, tmp_path / "run") / "scores" / "scores.json")
    assert result.per_query == run(bert, beir, "bm25", weights=(1.0, 0.5)).per_query


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"fuse": "rrf"}, "need systems in fused_with"),
        ({"weights": [1, 2]}, "need systems in fused_with"),
        ({"tune_on": "dev"}, "need systems in fused_with"),
        ({"blend": 0.5}, "blend needs rerank"),
        ({"fused_with": ["bm25"], "weights": [1]}, "not as many as the 2 systems"),
        ({"fused_with": ["bm25"], "fuse": "tuned", "weights": [1, 1]}, "tuned learns"),
        ({"fused_with": ["bm25"], "weights": [1, float("inf")]}, "finite"),
    ],
)
def test_a_stage_that_cannot_fuse_is_refused_before_any_stage_runs(settings, said):
    stage = {"model": "m", "path": "p"} | settings
    with pytest.raises(ValidationError, match=said):
        Pipeline(description="fused", stages=[{"name": "scores", "evaluate": stage}])


def test_a_ranking_whose_scores_are_too_large_to_keep_is_refused(beir, tmp_path):
    (tmp_path / "large.trec").write_text("q0 Q0 d0 1 1e39 x\n")
    with pytest.raises(UserError, match="no finite number of 32 bits"):
        run(f"run:{tmp_path / 'large.trec'}", beir, "bm25")


def test_a_baseline_beside_forms_or_units_is_refused(beir, tmp_path):
    run("bm25", beir, "bm25:k1=0.9", output=tmp_path / "base.json")
    with pytest.raises(UserError, match="compare with queries and documents as they are"):
        run("bm25", beir, units=True, baseline=tmp_path / "base.json")
