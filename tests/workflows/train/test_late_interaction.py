"""A late-interaction model through every command that a dense one goes through, with no further flags."""

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from embedtrain.cli.main import app
from embedtrain.resources import resource

MODEL = """\
  kind: late_interaction
  dim: 8
  query: {length: 12}
  document: {length: 16}
"""


def command(*arguments: object) -> None:
    """Run a command in this process: one of its own would spend most of its time on imports."""
    app([str(argument) for argument in arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def late_recipe(
    tmp_path_factory: pytest.TempPathFactory, bert_with_dropout: str, pairs: Path, beir
):
    path = tmp_path_factory.mktemp("late") / "late.yaml"
    path.write_text(
        f"""\
description: Tiny late interaction.
data:
  sources: [{{path: {pairs}}}]
model:
  backbone: {bert_with_dropout}
{MODEL}
objective: {{name: info_nce, temperature: 1.0}}
trainer: {{steps: 6, batch_size: 8, chunk_tokens: 60, learning_rate: 1.0e-3, checkpoint_every: 3, rematerialize: true}}
evaluation: {{path: {beir}, split: test}}
"""
    )
    return path


@pytest.fixture(scope="module")
def late_run(late_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "late"
    command("train", late_recipe, "--output", output)
    return output


def test_a_run_measures_before_and_after_and_exports_a_portable_model(late_run):
    evaluation = json.loads((late_run / "evaluation.json").read_text())
    assert set(evaluation) == {"before", "after"}
    assert 0 <= evaluation["after"]["ndcg_at_10"]["value"] <= 1
    settings = json.loads((late_run / "model" / "config_sentence_transformers.json").read_text())
    assert settings["model_type"] == "ColBERT"
    assert "PyLate" in (late_run / "model" / "README.md").read_text()


def test_test_queries_that_were_trained_on_are_counted(late_recipe, pairs, beir, tmp_path):
    queries = [
        json.loads(line)["text"] for line in (beir / "queries.jsonl").read_text().splitlines()
    ]
    rows = [{"query": text, "positive": text} for text in queries[:3]]
    seen = tmp_path / "seen.jsonl"
    seen.write_text(pairs.read_text() + "".join(json.dumps(row) + "\n" for row in rows))
    command(
        "train",
        late_recipe,
        f"data.sources=[{{path: {seen}}}]",
        "trainer.steps=1",
        "--output",
        tmp_path / "run",
    )
    after = json.loads((tmp_path / "run" / "evaluation.json").read_text())["after"]
    asked = {text.lower() for text in queries}
    trained = {json.loads(line)["query"].lower() for line in seen.read_text().splitlines()}
    assert after["train_overlap"]["equal_queries"] == len(asked & trained) / len(queries) >= 0.3
    share = f"{after['train_overlap']['equal_queries']:.1%} of the test queries are among the training queries"
    assert share in (tmp_path / "run" / "model" / "README.md").read_text()


def test_evaluate_and_search_take_the_model_as_it_is(late_run, beir, tmp_path):
    output = tmp_path / "scores.json"
    command("evaluate", late_run / "model", "--data", beir, "--output", output)
    stored = json.loads((late_run / "evaluation.json").read_text())["after"]
    again = json.loads(output.read_text())
    assert again["ndcg_at_10"]["value"] == pytest.approx(stored["ndcg_at_10"]["value"])
    for _ in range(2):  # the second time from the cached vectors
        command("search", late_run / "model", "red cat")


def test_encode_writes_the_vectors_of_all_tokens_and_how_many_each_text_has(
    late_run, tmp_path, sentences
):
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in sentences[:5]))
    output = tmp_path / "vectors.npy"
    command("encode", late_run / "model", texts, "--output", output)
    vectors, lengths = np.load(output), np.load(tmp_path / "vectors.lengths.npy")
    assert vectors.dtype == np.float32
    assert len(lengths) == 5
    assert vectors.shape == (lengths.sum(), 8)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_export_writes_the_same_model_again(late_run, tmp_path):
    command("export", late_run, "--output", tmp_path / "copy")
    same = [
        (folder / "1_Dense/model.safetensors").read_bytes()
        for folder in (late_run / "model", tmp_path / "copy")
    ]
    assert same[0] == same[1]


def test_doctor_and_check_know_late_interaction(late_recipe):
    command("doctor", late_recipe)
    command("check", late_recipe)


RECIPES = sorted(
    path.stem for path in resource("recipes").joinpath("late_interaction").glob("*.yaml")
)


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "quickstart"])
def test_every_recipe_trains_on_a_tiny_model(name, scored, small, bert, tmp_path, monkeypatch):
    export = import_module("embedtrain.release.export")  # the name in the package is the function
    monkeypatch.setattr(export, "verify", lambda *_: None)  # proven elsewhere, and slow
    output = tmp_path / "run"
    sources = [f"data.sources=[{{path: {scored}}}]", f"model.backbone={bert}"]
    sources += ["model.token_scorer.layer=1"] if name == "nugget" else []
    command("train", f"late_interaction/{name}", *small, *sources, "--output", output)
    assert len((output / "metrics.csv").read_text().splitlines()) == 3
    assert (output / "model" / "embedtrain.json").is_file()
