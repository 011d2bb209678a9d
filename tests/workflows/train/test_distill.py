"""The recipes of distillation on a tiny model: they train and export, and D2LLM's scorer is used from end to end."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from embedtrain.data.examples import SourceConfig
from embedtrain.encoding.language import yes_no
from embedtrain.encoding.language.settings import LanguageSettings
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.mining.settings import MiningConfig
from embedtrain.models.build import load_encoder
from embedtrain.ops.interaction import interaction_scores
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.release.onnx import export_onnx
from embedtrain.resources import resource
from embedtrain.training.validation import encode_task, rank_task
from embedtrain.workflows.doctor import diagnose
from embedtrain.workflows.evaluate.model import measure
from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks
from embedtrain.workflows.mine import mine
from embedtrain.workflows.prepare import load_task
from embedtrain.workflows.score import score
from embedtrain.workflows.search import Searcher
from embedtrain.workflows.train import train

FOLDER = resource("recipes") / "distill"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml") if "\nstages:" not in path.read_text())
CHANGES = {
    "d2llm_interaction": [
        "model.attention_pooling={num_heads: 4}",
        "model.interaction={hidden: 16}",
    ],
    "dse": ["model.layer_pooling={last: 2}", "model.interaction.hidden=16"],
    "embedding": ["model.projection=32"],
    "leaf": ["model.kept_layers=[1, 2]"],
    "translation": ["model.projection=32"],
    "projective": ["model.kept_layers=[2]", "model.projection=8", "guide.dim=8"],
    "self_distillation": ["model.dim=8", "model.cls_dim=8"],
}


@pytest.fixture(scope="module", autouse=True)
def trusted_exports():
    """Reloading each export takes long and is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedtrain.release.export.verify", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def make(scored, small, bert, llama):
    """Load a recipe for a tiny model; a recipe of adapters gets a decoder."""

    def make(name, *further):
        path = FOLDER / f"{name}.yaml"
        backbone = llama if "lora:" in path.read_text() else bert
        overrides = [f"data.sources=[{{path: {scored}}}]", f"model.backbone={backbone}"]
        overrides += [f"guide.model={bert}"] if "guide:" in path.read_text() else []
        return load_recipe(path, [*small, *overrides, *CHANGES.get(name, []), *further])

    return make


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_trains_on_a_tiny_model(name, make, tmp_path):
    run = train(make(name), tmp_path / "run")
    rows = (run.path / "metrics.csv").read_text().splitlines()
    assert len(rows) == 3
    assert (run.model / "embedtrain.json").is_file()


@pytest.fixture(scope="module")
def d2llm(make, tmp_path_factory):
    return train(make("d2llm_interaction"), tmp_path_factory.mktemp("d2llm") / "run").model


def test_a_language_model_teaches_its_student_from_scoring_on(
    make, language_model, write_jsonl, tmp_path, monkeypatch, sentences
):
    monkeypatch.setattr(yes_no, "LEAST_MASS", 0)  # a random model is about to say anything
    rows = [
        {"query": text[:5], "positive": text, "negatives": [sentences[number - 3], "cat"]}
        for number, text in enumerate(sentences[:16])
    ]
    data, out = SourceConfig(path=str(write_jsonl(rows))), tmp_path / "scored.jsonl"
    plain = tmp_path / "plain.jsonl"
    score(language_model, data, out, kind="yes_no", language=LanguageSettings(gram=True))
    run = train(make("d2llm_interaction", f"data.sources=[{{path: {out}}}]"), tmp_path / "run")
    header, *steps = (run.path / "metrics.csv").read_text().splitlines()
    (feature,) = (n for n, name in enumerate(header.split(",")) if name.endswith("feature"))
    assert steps
    assert all(float(step.split(",")[feature]) > 0 for step in steps)
    score(language_model, data, plain, kind="yes_no")
    with pytest.raises(UserError, match="score LLM --as yes_no --gram"):
        train(make("d2llm_interaction", f"data.sources=[{{path: {plain}}}]"), tmp_path / "other")


def test_chunks_give_the_gradients_of_pooling_and_head_too(make):
    diagnosis = diagnose(make("d2llm_interaction", "model.lora.frozen=float32"))  # bf16 rounds
    assert diagnosis.healthy, diagnosis
    trained = {group.name: group.norm for group in diagnosis.groups}
    assert any("attention_pooling" in name for name in trained), trained
    assert any("interaction" in name for name in trained), trained


def test_evaluation_and_search_rank_by_the_head(d2llm, beir):
    model = load_encoder(str(d2llm))
    task = load_task(str(beir), "test")
    queries, documents = (
        torch.from_numpy(encode_texts(model, texts, side))
        for texts, side in ((task.queries, "query"), (task.documents, "document"))
    )
    with torch.no_grad():
        scores = interaction_scores(model.interaction.weights, queries, documents)
    best = {task.document_ids[row] for row in scores[0].topk(3).indices.tolist()}
    hits = Searcher(str(d2llm), str(beir), "test").search(task.queries[0], 3)
    assert {hit.document_id for hit in hits} == best
    assert best != {
        task.document_ids[row] for row in (queries[0] @ documents.T).topk(3).indices.tolist()
    }
    found = measure(model, task, "test", "test", efficiency=False)
    again = evaluate_tasks(str(d2llm), Wish([str(beir)], "test"))[0]
    first, second = found.metrics["ndcg_at_10"].value, again.metrics["ndcg_at_10"].value
    assert first == pytest.approx(second)
    ranked = rank_task(task, encode_task(model, task), 3)  # as training validates
    row = ranked.query_ids.index(task.query_ids[0])
    np.testing.assert_allclose(ranked.scores[row], scores[0].topk(3).values, rtol=1e-5)


def test_similarity_does_not_depend_on_which_text_comes_first(d2llm, write_jsonl, sentences):
    rows = [
        {"sentence1": a, "sentence2": b, "score": number % 6}
        for number, (a, b) in enumerate(zip(sentences[:20], sentences[20:40], strict=True))
    ]
    swapped = [row | {"sentence1": row["sentence2"], "sentence2": row["sentence1"]} for row in rows]
    results = [
        evaluate_tasks(str(d2llm), Wish([str(write_jsonl(lines, f"{name}.jsonl"))], task="sts"))[0]
        for name, lines in (("there", rows), ("back", swapped))
    ]
    first, second = (
        {key: value.value for key, value in found.metrics.items()} for found in results
    )
    assert first == pytest.approx(second)
    model = load_encoder(str(d2llm))
    texts = [[row["sentence1"] for row in rows], [row["sentence2"] for row in rows]]
    one, other = (torch.from_numpy(encode_texts(model, some, "document")) for some in texts)
    with torch.no_grad():
        there, back = (
            interaction_scores(model.interaction.weights, *both, "similarity").diagonal()
            for both in ((one, other), (other, one))
        )
    expected = spearmanr(there + back, [row["score"] for row in rows]).statistic
    assert first["spearman"] == pytest.approx(expected)


def test_commands_that_compare_inner_products_refuse_it(d2llm, beir, tmp_path):
    with pytest.raises(UserError, match="compares inner products"):
        mine(str(d2llm), str(beir), tmp_path / "mined", MiningConfig(num_negatives=1), split="test")
    assert not (tmp_path / "mined").exists()
    with pytest.raises(UserError, match="--onnx has no graph"):
        export_onnx(d2llm)


def test_an_objective_that_leaves_the_head_untrained_is_refused(make):
    recipe = make("d2llm_interaction").model_dump()
    recipe["objective"] = {"name": "angle"}
    with pytest.raises(ValueError, match="needs an objective that trains it"):
        type(make("kl")).model_validate(recipe)
