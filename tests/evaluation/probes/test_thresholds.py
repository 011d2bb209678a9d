"""The probe of thresholds, what it keeps in a model folder, and searching by it."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.errors import UserError
from embedtrain.evaluation.probes.base import ProbeWish
from embedtrain.evaluation.probes.thresholds import measure_thresholds
from embedtrain.evaluation.results.threshold import read_threshold
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.build import load_encoder


@pytest.fixture(scope="module")
def echoes(tmp_path_factory, sentences):
    """A BEIR folder whose queries are documents, so that the best result is the relevant one."""
    folder = tmp_path_factory.mktemp("echoes")
    texts = sorted(set(sentences))[:60]
    corpus = [{"_id": f"d{row}", "text": text} for row, text in enumerate(texts)]
    queries = [{"_id": f"q{row}", "text": text} for row, text in enumerate(texts[:40])]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines)
    (folder / "qrels").mkdir()
    judged = "".join(f"q{row}\td{row}\t1\n" for row in range(40))
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return folder


@pytest.fixture
def model(bert, tmp_path):
    """A copy of a model, with a card."""
    folder = shutil.copytree(bert, tmp_path / "model")
    (folder / "README.md").write_text(
        "# A model\n\n## Threshold\n\nof last week\n\n## Use\n\nwell\n"
    )
    return folder


def run(*words):
    return CliRunner().invoke(app, [*map(str, words)], catch_exceptions=True)


@pytest.mark.parametrize("kind", ["bert", "late_interaction"])
def test_the_samples_are_the_scores_of_pairs(kind, request, echoes, cache):
    subject = Subject(load_encoder(request.getfixturevalue(kind)), kind, cache)
    samples, found = measure_thresholds(subject, ProbeWish(data=echoes, size=20, precision=0.3))
    assert len(samples["relevant"]) == 40
    assert 40 * 9 <= len(samples["near"]) <= 40 * 9 + 40 * (kind != "bert")
    assert 40 * 19 <= len(samples["random"]) <= 40 * 20
    assert samples["relevant"].min() >= samples["near"].max() - 1e-5 or kind != "bert"
    assert (
        np.median(samples["relevant"]) > np.median(samples["near"]) > np.median(samples["random"])
    )
    assert found.num_queries == 20
    assert found.low <= found.precision <= found.high


def test_the_threshold_shows_the_relevant_and_no_other(bert, echoes, cache):
    subject = Subject(load_encoder(bert), bert, cache)
    wish = ProbeWish(data=echoes, size=20, precision=0.8)
    _, found = measure_thresholds(subject, wish)
    assert found.score == pytest.approx(1, abs=1e-3)  # of a text and itself
    assert found.precision >= 0.8
    assert found.recall > 0.9
    with pytest.raises(UserError, match="no score reaches the wanted precision"):
        measure_thresholds(subject, ProbeWish(data=echoes, size=20, precision=0.999))


def test_a_stored_threshold_is_told_on_the_card_and_cuts_a_search(model, echoes):
    wanted = ("--wanted", 0.8, "--data", echoes)
    assert run("probe", model, "thresholds", *wanted, "--store").exit_code == 0
    card = (model / "README.md").read_text()
    assert "of last week" not in card
    assert card.index("## Use") < card.index("## Threshold\n\nAmong the first 10")
    (query,) = (row for row in (echoes / "queries.jsonl").read_text().splitlines()[:1])
    text = json.loads(query)["text"]
    every = run("search", model, text, "--data", echoes)
    cut = run("search", model, text, "--data", echoes, "--threshold", "stored")
    assert "5. " in every.stdout
    assert "1. d0" in cut.stdout
    assert "5. " not in cut.stdout
    nothing = run("search", model, text, "--data", echoes, "--threshold", 2)
    assert "no document scores 2 or more" in nothing.stderr


def test_a_threshold_of_another_model_is_refused(model, echoes, bert):
    run("probe", model, "thresholds", "--wanted", 0.8, "--data", echoes, "--store")
    with pytest.raises(UserError, match="of other weights"):
        read_threshold(model, "another")
    (model / "threshold.json").write_text('{"score": "high"}')
    with pytest.raises(UserError, match="is not usable"):
        read_threshold(model, "another")
    with pytest.raises(UserError, match=r"needs a threshold\.json"):
        read_threshold(model / "none", "another")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("search", "bert", "x", "--data", "beir", "--threshold", "much"), "--threshold is no score"),
        (("search", "bert", "x", "--data", "beir", "--threshold", "1", "--with", "bm25"), "is for the model's own"),
        (("probe", "bert", "limit", "--store"), "--store is for the probe thresholds"),
        (("probe", "bert", "thresholds", "--data", "beir"), "need 16 judged queries"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_a_line(words, message, request, beir, bert):
    places = {"bert": bert, "beir": beir}
    result = run(*(places.get(word, word) for word in words))
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)
