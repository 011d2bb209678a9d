"""Smaller corpora: pools of what rankings found, and pruning by quality."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.errors import UserError
from embedtrain.evaluation.results.ranking_file import write_run
from embedtrain.evaluation.tasks.discovery import open_task
from embedtrain.evaluation.tasks.smaller import Pruning, Sample, pruned, sampled
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.build import load_encoder


@pytest.fixture
def folder(tmp_path):
    """Four documents; d1 and d3 are relevant to a query of the test, d0 and d2 to those of the training."""
    texts = ["a cat sleeps under a tree", "the dog runs", "a bird jumps over the house", "it"]
    corpus = [{"_id": f"d{row}", "text": text} for row, text in enumerate(texts)]
    queries = [
        {"_id": f"q{row}", "text": text} for row, text in enumerate(["dog", "it", "cat", "bird"])
    ]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "qrels").mkdir()
    for split, pairs in (("test", [(0, 1), (1, 3)]), ("train", [(2, 0), (3, 2)])):
        judged = "".join(f"q{query}\td{document}\t1\n" for query, document in pairs)
        (tmp_path / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return tmp_path


@pytest.fixture
def task(folder):
    return open_task(str(folder), kind="retrieval")


@pytest.fixture
def subject(bert, cache):
    return Subject(load_encoder(bert), bert, cache)


def scores_in(path, values):
    np.save(path / "quality.npy", np.array(values))
    return str(path / "quality.npy")


def kept(task):
    return task.task.document_ids


def test_half_of_the_corpus_is_its_better_half(task, subject, tmp_path):
    quality = scores_in(tmp_path, [0.9, 0.1, 0.5, 0.3])
    half = pruned(task, Pruning(0.5, quality), subject)
    assert kept(half) == ["d0", "d2"]
    assert half.task.qrels == task.task.qrels  # what is relevant and gone is not found
    outcome = half.run(subject)
    assert outcome.per_query["recall_at_100"] == {"q0": 0, "q1": 0}


def test_all_of_the_corpus_is_the_corpus(task, subject, tmp_path):
    whole = pruned(task, Pruning(1.0, scores_in(tmp_path, [1, 2, 3, 4])), subject)
    assert kept(whole) == kept(task)
    assert whole.run(subject).per_query == task.run(subject).per_query


def test_the_shortest_go_first_and_copies_do(task, subject):
    assert kept(pruned(task, Pruning(0.75, "shortest"), subject)) == ["d0", "d1", "d2"]
    task.task.documents[3] = task.task.documents[0]
    assert kept(pruned(task, Pruning(0.75, "copies"), subject)) == ["d0", "d1", "d2"]


def test_a_learned_quality_prefers_what_training_found_relevant(task, subject):
    assert kept(pruned(task, Pruning(0.5, "learned"), subject)) == ["d0", "d2"]


def test_a_training_split_of_the_queries_that_are_measured_is_refused(folder, task, subject):
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0\t1\n")
    with pytest.raises(UserError, match="trains on queries that are measured; got 'q0'"):
        pruned(task, Pruning(0.5, "learned"), subject)


@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, 2.0, np.nan, 3.0], ["a", "b", "c", "d"]])
def test_scores_of_another_corpus_are_refused(values, task, subject, tmp_path):
    with pytest.raises(UserError, match="holds no score for each of 4 documents"):
        pruned(task, Pruning(0.5, scores_in(tmp_path, values)), subject)


def test_a_pool_has_the_judged_and_the_first_of_each_ranking(task, tmp_path):
    write_run({"q0": {"d0": 3.0, "d1": 2.0}}, tmp_path / "a.trec", "a")
    write_run({"q0": {"d2": 3.0, "d0": 9.0}, "q2": {"d2": 1.0}}, tmp_path / "b.trec", "b")
    small = sampled(task, Sample((tmp_path / "a.trec", tmp_path / "b.trec"), depth=1))
    assert kept(small) == ["d0", "d1", "d3"]
    assert small.data.num_documents == 3
    assert small.data.fingerprint != task.data.fingerprint
    one = sampled(task, Sample((tmp_path / "a.trec",), depth=1, num_queries=1))
    assert one.data.num_queries == len(one.task.qrels) == len(one.texts) == 1


def test_a_ranking_of_other_queries_is_refused(task, tmp_path):
    write_run({"q9": {"d0": 3.0}}, tmp_path / "a.trec", "a")
    with pytest.raises(UserError, match="for none of the queries"):
        sampled(task, Sample((tmp_path / "a.trec",)))


def test_a_pooled_model_scores_on_the_pool_as_on_the_whole_corpus(bert, beir, tmp_path):
    def evaluate(output, *words):
        line = ["evaluate", bert, "--data", str(beir), "--no-efficiency", *words]
        done = CliRunner().invoke(app, [*line, "--output", str(output)], catch_exceptions=False)
        assert done.exit_code == 0
        return json.loads(output.read_text()), done.output

    whole, _ = evaluate(tmp_path / "whole.json")
    run = tmp_path / "whole.trec"
    pool, said = evaluate(tmp_path / "pool.json", "--sample", str(run), "--sample-depth", "10")
    assert pool["per_query"]["ndcg_at_10"] == whole["per_query"]["ndcg_at_10"]
    assert pool["data"]["num_documents"] < whole["data"]["num_documents"]
    assert "no ranking in the pool" not in said
    less, _ = evaluate(tmp_path / "less.json", "--keep", "0.5", "--quality", "random")
    assert less["model"]["settings"]["keep"] == "0.5 by random"
    assert less["data"] == whole["data"]
    assert less["recall_at_100"]["value"] < 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--quality", "random"], "--quality says what is left out"),
        (["--keep", "0.5", "--with", "bm25"], "--keep is for one model"),
        (["--sample", "x.trec", "--rerank", "bm25"], "--sample is for systems that search"),
    ],
)
def test_what_does_not_go_together_is_refused(words, message, bert, beir):
    result = CliRunner().invoke(app, ["evaluate", bert, "--data", str(beir), *words])
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)


def test_a_rule_that_is_none_is_refused(task, subject):
    with pytest.raises(
        UserError, match=r"^--quality is no rule and no file; got 'foo'\. Choose learn"
    ):
        pruned(task, Pruning(0.5, "foo"), subject)
