"""Frozen paraphrases: figures by hand-worked values, and rows that cannot be used."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.data.readers.beir import load_retrieval_task
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.metrics import score_run
from embedtrain.evaluation.measures.statistics import bootstrap_interval
from embedtrain.evaluation.probes.base import ProbeWish
from embedtrain.evaluation.probes.discovery import run_probe
from embedtrain.evaluation.probes.paraphrases import (
    Measured,
    describe,
    measure_reworded,
    read_paraphrases,
)
from embedtrain.evaluation.tasks.retrieval import as_run
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.build import load_encoder

METRIC = "ndcg_at_10"
SHARE = "share_of_queries"


@pytest.fixture
def folder(beir, tmp_path):
    return shutil.copytree(beir, tmp_path / "beir")


@pytest.fixture
def queries(beir):
    rows = map(json.loads, (beir / "queries.jsonl").read_text().splitlines())
    return {row["_id"]: row["text"] for row in rows}


def write(folder, *rows):
    path = folder / "paraphrases.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def values(findings):
    return {(one.setting, one.metric): one.value for one in findings}


def test_figures_are_those_worked_by_hand():
    scores = np.array([[1.0, 1.0, 0.5], [0.5, 0.0, 0.5], [0.0, 0.0, 0.0], [0.5, 0.5, 1.0]])
    firsts = np.array([[7, 7, 8], [3, 4, 5], [1, 1, 1], [2, 2, 2]])
    found = values(describe(Measured(scores, firsts), ["a", "b", "c", "d"], seed=0))
    assert found["4 queries as they are", METRIC] == pytest.approx(0.5)
    assert found["mean of 2 variants", METRIC] == pytest.approx((0.375 + 0.5) / 2)
    assert found["standard deviation of variants", METRIC] == pytest.approx(0.125 / np.sqrt(2))
    assert found["drop", METRIC] == pytest.approx(0.0625)
    assert found["first document changes, mean of variants", SHARE] == pytest.approx(3 / 8)
    assert found["first document changes in any variant", SHARE] == pytest.approx(1 / 2)


def test_variants_of_a_query_do_not_make_the_interval_narrower():
    rng = np.random.default_rng(0)
    original, variant = rng.random(30), rng.random(30)
    scores = np.stack([original, *[variant] * 4], axis=1)
    query_ids = [f"q{number:02}" for number in range(30)]
    found = values(describe(Measured(scores, np.zeros((30, 5), np.int64)), query_ids, seed=3))
    one_variant = bootstrap_interval(original - variant, seed=3)
    assert found["drop, lower bound of 95 %", METRIC] == pytest.approx(one_variant.low)
    assert found["drop, upper bound of 95 %", METRIC] == pytest.approx(one_variant.high)
    assert found["standard deviation of variants", METRIC] == pytest.approx(0)


@pytest.mark.parametrize("kind", ["bert", "late_interaction"])
def test_a_variant_that_is_the_query_changes_nothing(kind, request, folder, queries, cache):
    write(
        folder,
        {"_id": "q4", "text": queries["q4"], "paraphrases": [queries["q4"], queries["q5"]]},
        {"_id": "q1", "paraphrases": [queries["q1"], queries["q2"]]},
    )
    subject = Subject(load_encoder(request.getfixturevalue(kind)), kind, cache)
    found = values(run_probe("paraphrases", subject, ProbeWish(folder)))
    original = found["2 queries as they are", METRIC]
    mean = found["mean of 2 variants", METRIC]
    assert original > mean
    assert found["drop", METRIC] == pytest.approx(original - mean)
    other = 2 * mean - original  # the second variant, for the first is the queries themselves
    spread = (original - other) / np.sqrt(2)
    assert found["standard deviation of variants", METRIC] == pytest.approx(spread)
    changed = found["first document changes in any variant", SHARE]
    assert changed > 0
    assert found["first document changes, mean of variants", SHARE] == pytest.approx(changed / 2)


def test_documents_in_other_words_stand_in_the_place_of_their_own(folder, bert, cache):
    subject = Subject(load_encoder(bert), "x", cache)
    task = load_retrieval_task(folder)
    others = {"d4": ["a red cat", task.documents[4]], "d2": ["the dog", "a tree"]}
    rows = [{"_id": one, "side": "document", "paraphrases": two} for one, two in others.items()]
    write(folder, *rows)
    found = measure_reworded(subject, task, others)
    variants = [[*task.documents] for _ in range(3)]
    for number in (1, 2):
        for name, texts in others.items():
            variants[number][int(name[1:])] = texts[number - 1]
    for number, documents in enumerate(variants):
        ranked = subject.search(task.queries, documents, 10, "query")
        scores = score_run(task.qrels, as_run(task.query_ids, task.document_ids, ranked), [METRIC])
        np.testing.assert_allclose(found.scores[:, number], list(scores[METRIC].values()))
        assert found.firsts[:, number].tolist() == ranked.indices[:, 0].tolist()
    assert (found.scores[:, 0] != found.scores[:, 1]).any()
    printed = values(run_probe("paraphrases", subject, ProbeWish(folder)))
    drop = printed["2 documents in other words: drop", METRIC]
    assert drop == pytest.approx((found.scores[:, :1] - found.scores[:, 1:]).mean())


def test_one_variant_has_no_standard_deviation(folder, queries, bert, cache):
    write(folder, *({"_id": one, "paraphrases": [text]} for one, text in queries.items()))
    found = values(
        run_probe("paraphrases", Subject(load_encoder(bert), "x", cache), ProbeWish(folder))
    )
    assert not any("deviation" in setting for setting, _ in found)
    assert found["drop, upper bound of 95 %", METRIC] == 0
    assert found["first document changes in any variant", SHARE] == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"_id": "q11", "paraphrases": ["a"]}, r":2 _id is no query of queries\.jsonl; got 'q11'"),
        ({"paraphrases": ["a"]}, r":2 _id is no query of queries\.jsonl; got None"),
        ({"_id": "q0", "paraphrases": ["a", "b"]}, ":2 names a query a second time; got 'q0'"),
        ({"_id": "q1", "text": "x", "paraphrases": ["a"]}, ":2 text is not that of the query"),
        ({"_id": "q1"}, ":2 paraphrases must be a list of texts"),
        ({"_id": "q1", "side": "both", "paraphrases": ["a"]}, ":2 side is no side; got 'both'"),
        ({"_id": "q1", "paraphrases": []}, r":2 paraphrases must be a list of texts; got \[\]"),
        ({"_id": "q1", "paraphrases": "ab"}, ":2 paraphrases must be a list of texts; got 'ab'"),
        ({"_id": "q1", "paraphrases": ["a", 3]}, ":2 paraphrases must be texts; got 3"),
        ({"_id": "q1", "paraphrases": ["a", " "]}, ":2 paraphrases must be texts; got ' '"),
        ({"_id": "q1", "paraphrases": ["a"]}, ":2 paraphrases are not as many as the 2 of the"),
    ],
)
def test_rows_that_cannot_be_used_are_the_users_mistake(row, message, queries, tmp_path):
    path = write(tmp_path, {"_id": "q0", "paraphrases": ["a", "b"]}, row)
    with pytest.raises(UserError, match=message):
        read_paraphrases(path, queries)


def test_queries_without_judgments_are_passed_over(folder, queries, bert, cache):
    with (folder / "queries.jsonl").open("a") as file:
        file.write('{"_id": "train", "text": "red"}\n')
    rows = {"_id": "train", "paraphrases": ["blue"]}, {"_id": "q3", "paraphrases": ["a cat"]}
    subject = Subject(load_encoder(bert), "x", cache)
    write(folder, *rows)
    found = run_probe("paraphrases", subject, ProbeWish(folder))
    assert found[0].setting == "1 queries as they are"
    write(folder, rows[0])
    with pytest.raises(UserError, match=r"has no query that qrels/test\.tsv judges"):
        run_probe("paraphrases", subject, ProbeWish(folder))


def test_the_command_line_takes_the_folder(folder, queries, bert):
    write(folder, {"_id": "q3", "paraphrases": ["a cat", "a dog"]})
    done = CliRunner().invoke(app, ["probe", bert, "paraphrases", "--data", str(folder)])
    assert done.exit_code == 0, done.output
    assert "drop" in done.output
    (folder / "paraphrases.jsonl").unlink()
    done = CliRunner().invoke(app, ["probe", bert, "paraphrases", "--data", str(folder)])
    assert isinstance(done.exception, UserError)
    assert "paraphrases.jsonl does not exist" in str(done.exception)
