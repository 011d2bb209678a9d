"""A cross-encoder from its recipe to the folder that others load: the runs that encoders stand, it stands too."""

import json
import signal

import numpy as np
import pytest
import torch
from forks import embedtrain, signal_on_call
from pair_toys import marked_rows
from rank_toys import exported_weights

from embedtrain.encoding.cross_encoder import CrossEncoder
from embedtrain.errors import UserError
from embedtrain.models.build import load_encoder
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.release.export import export
from embedtrain.release.servers import loading_problems
from embedtrain.training.module import RetrievalModule
from embedtrain.workflows.check import check
from embedtrain.workflows.doctor import diagnose
from embedtrain.workflows.train import resume, train

QUERY = "red"
DOCUMENTS = ["the small red house", "a cat sleeps near a tree", "blue"]
PAIRS = [(QUERY, document) for document in DOCUMENTS]


@pytest.fixture(scope="module")
def run(pair_sections, forked_reloads, tmp_path_factory):
    return train(load_recipe(pair_sections), tmp_path_factory.mktemp("runs") / "run")


def test_what_is_exported_scores_alike_everywhere(run, tmp_path):
    from sentence_transformers import CrossEncoder as Theirs
    from transformers import pipeline

    ours = CrossEncoder(str(run.model)).logits(PAIRS)
    assert np.ptp(ours) > 1e-3
    theirs = Theirs(str(run.model), device="cpu")
    assert isinstance(theirs.activation_fn, torch.nn.Identity)
    assert np.allclose(theirs.predict(PAIRS), ours, atol=1e-5)
    classify = pipeline("text-classification", model=str(run.model), function_to_apply="none")
    inputs = [{"text": query, "text_pair": document} for query, document in PAIRS]
    assert np.allclose([one["score"] for one in classify(inputs)], ours, atol=1e-5)
    again = export(run.path, tmp_path / "again")
    assert np.allclose(CrossEncoder(str(again)).logits(PAIRS), ours, atol=1e-6)
    twice = export(again, tmp_path / "twice")
    assert np.allclose(CrossEncoder(str(twice)).logits(PAIRS), ours, atol=1e-6)
    with pytest.raises(UserError, match="can end at a layer or say probabilities and no more"):
        export(again, tmp_path / "less", dim=1)


@pytest.mark.prove
@pytest.mark.usefixtures("fresh_reloads")
def test_an_export_is_reloaded_in_a_process_of_its_own(run, tmp_path):
    """Here that process forgets nothing it needs; that each export has one is tested with dense models."""
    again = export(run.path, tmp_path / "again")
    assert np.array_equal(
        CrossEncoder(str(again)).logits(PAIRS), CrossEncoder(str(run.model)).logits(PAIRS)
    )


def test_servers_take_the_folder_for_a_reranker(run):
    config = json.loads((run.model / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "LABEL_0"}
    assert json.loads((run.model / "tokenizer_config.json").read_text())["model_max_length"] == 32
    assert not (run.model / "modules.json").exists()
    assert loading_problems(run.model) == {"text-embeddings-inference": [], "vLLM": []}
    card = (run.model / "README.md").read_text()
    assert "pipeline_tag: text-ranking" in card
    assert "only the order" in card


@pytest.mark.parametrize(("times", "told"), [(20, 1), (1, 0)])
def test_the_end_of_training_tells_how_many_pairs_were_cut(
    pair_sections, tmp_path, capsys, times, told
):
    path = tmp_path / "rows.jsonl"
    rows = [row | {"positive": f"{row['positive']} " * times} for row in marked_rows(40, 0)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changed = pair_sections | {
        "data": {"sources": [{"path": str(path)}]},
        "trainer": pair_sections["trainer"] | {"steps": 1},
    }
    train(load_recipe(changed), tmp_path / "run")
    lines = capsys.readouterr().err.splitlines()
    assert sum("% of the pairs were longer than model.length" in line for line in lines) == told


def test_it_is_no_encoder(run):
    with pytest.raises(UserError, match="is a cross-encoder, which reads queries"):
        load_encoder(str(run.model))


def test_the_log_says_how_pairs_are_scored(run):
    header, *lines = run.metrics.read_text().splitlines()
    for name in ("pair_accuracy", "score_positive", "score_negative", "score_std"):
        assert f"train/{name}" in header.split(",")
    assert [line.split(",")[0] for line in lines] == ["0", "2", "4"]


def test_a_killed_run_ends_with_the_same_bits(pair_sections, run, tmp_path):
    (tmp_path / "recipe.yaml").write_text(json.dumps(pair_sections | {"description": "x"}))
    done = embedtrain(
        ["train", tmp_path / "recipe.yaml", "--output", tmp_path / "run"],
        before=lambda: signal_on_call(RetrievalModule, "training_step", 4, signal.SIGKILL),
    )
    assert done.returncode == -signal.SIGKILL
    resume(tmp_path / "run")
    ours, theirs = exported_weights(tmp_path / "run"), exported_weights(run.path)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_the_doctor_and_the_check_know_pairs(pair_sections):
    recipe = load_recipe(pair_sections, ["model.dropout=0.0"])
    assert diagnose(recipe).healthy
    report = check(recipe)
    assert report.estimate.tokens_per_step > 8 * 4 * 5
    assert report.estimate.plan.parts["vectors"] == 0
