"""What a recipe may ask of a cross-encoder: objectives, exits, adapters and heads; and what it may not."""

import json

import numpy as np
import pytest
import torch
from pair_toys import NO_DROPOUT, SIZES, marked_rows, save_pair_tokenizer

from embedtrain.encoding.cross_encoder import CrossEncoder
from embedtrain.errors import UserError
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.release.export import export
from embedtrain.workflows.train import train

PAIRS = [("red", text) for text in ("the small red house", "a cat sleeps near a tree", "blue")]


@pytest.mark.usefixtures("forked")
def test_an_exit_that_was_trained_is_a_reranker_of_its_own(pair_sections, tmp_path):
    from sentence_transformers import CrossEncoder as Theirs

    objective = "objective={name: multi_exit, inner: {name: info_nce}}"
    run = train(load_recipe(pair_sections, ["model.exits=[1]", objective]), tmp_path / "run")
    header = run.metrics.read_text().splitlines()[0]
    assert {"train/loss_last", "train/loss_layer_1", "train/pair_accuracy"} <= {*header.split(",")}
    small = export(run.path, tmp_path / "small", layer=1)
    assert json.loads((small / "config.json").read_text())["num_hidden_layers"] == 1
    assert "ends at layer 1" in (small / "README.md").read_text()
    ours, whole = (CrossEncoder(str(folder)).logits(PAIRS) for folder in (small, run.model))
    assert np.allclose(Theirs(str(small), device="cpu").predict(PAIRS), ours, atol=1e-5)
    assert abs(ours - whole).max() > 1e-3
    with pytest.raises(UserError, match="is not one of the model's 1 layers"):
        export(small, tmp_path / "less", layer=2)


@pytest.mark.usefixtures("forked")
def test_sources_may_have_objectives_of_their_own(pair_sections, tmp_path):
    rows = pair_sections["data"]["sources"][0]["path"]
    graded = {"path": rows, "objective": {"name": "rank_net", "weights": "ndcg_loss2pp"}}
    sources = [{"path": rows, "objective": {"name": "binary_cross_entropy"}}, graded]
    recipe = load_recipe(pair_sections | {"data": {"sources": sources}})
    assert [one.temperature for one in recipe.objectives[1:]] == [1.0]
    assert (recipe.objectives[0].scale, recipe.objectives[0].bias) == (1.0, 0.0)
    train(recipe, tmp_path / "run")


@pytest.mark.usefixtures("forked")
def test_scores_of_binary_cross_entropy_are_probabilities_to_readers(pair_sections, tmp_path):
    run = train(
        load_recipe(pair_sections | {"objective": {"name": "binary_cross_entropy"}}),
        tmp_path / "run",
    )
    config = json.loads((run.model / "config.json").read_text())
    assert config["sentence_transformers"]["activation_fn"].endswith("Sigmoid")
    assert "log-odds of being relevant" in (run.model / "README.md").read_text()


@pytest.mark.usefixtures("forked")
def test_adapters_are_trained_and_folded_in(pair_sections, tmp_path):
    overrides = ["model.lora={rank: 2}", "trainer.learning_rate=0.01"]
    run = train(load_recipe(pair_sections, overrides), tmp_path / "run")
    assert (run.adapter / "adapter_model.safetensors").is_file()
    before, after = CrossEncoder(pair_sections["model"]["backbone"]), CrossEncoder(str(run.model))
    assert not np.allclose(before.logits(PAIRS), after.logits(PAIRS), atol=1e-3)
    resumed = torch.load(sorted(run.checkpoints.glob("step-*"))[-1])["state_dict"]
    assert all("lora_" in name or ".head." in name for name in resumed), "the rest is frozen"


@pytest.mark.usefixtures("forked")
def test_a_backbone_without_a_head_gets_one(pair_sections, bert, tmp_path):
    run = train(load_recipe(pair_sections, [f"model.backbone={bert}"]), tmp_path / "run")
    assert CrossEncoder(str(run.model)).logits(PAIRS).shape == (3,)


@pytest.mark.prove
@pytest.mark.usefixtures("forked")
def test_it_learns_where_in_a_document_a_word_of_the_query_stands(tmp_path):
    """From random weights, on rows of which all documents hold the same words in another order."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    wide = BertConfig(**SIZES, **NO_DROPOUT, initializer_range=0.1)
    BertModel(wide).save_pretrained(tmp_path / "bert")
    save_pair_tokenizer(tmp_path / "bert", "bert")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in marked_rows(4000, 0)))
    recipe = {
        "data": {"sources": [{"path": str(rows)}]},
        "model": {"kind": "cross_encoder", "backbone": str(tmp_path / "bert")},
        "trainer": {"steps": 150, "batch_size": 32, "learning_rate": 2e-3, "schedule": "constant"},
    }
    scorer = CrossEncoder(str(train(load_recipe(recipe), tmp_path / "run").model))
    wins = []
    for row in marked_rows(60, 9):
        first, *others = scorer.logits(
            [(row["query"], text) for text in (row["positive"], *row["negatives"])]
        )
        wins += [first > other for other in others]
    assert np.mean(wins) > 0.95


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "objective={name: cosine_regression}",
            "needs vectors.*use one of adr_mse, binary_cross_entropy",
        ),
        ("objective={name: info_nce, negatives: all}", "more than the scores of a query's own"),
        ("objective={name: matryoshka, dims: [8], inner: {name: info_nce}}", "needs vectors"),
        (
            "evaluation={path: x}",
            "drop evaluation, and run `embedtrain evaluate RETRIEVER --rerank",
        ),
        ("refresh={path: x, every_steps: 9}", "drop refresh"),
        ("objective={name: multi_exit, inner: {name: info_nce}}", "need each other"),
        (
            "objective={name: multi_exit, inner: {name: matryoshka, dims: [8], inner: {name: info_nce}}}",
            "needs more than the scores",
        ),
        ("model.length=3", "model.length leaves nothing for a document beside 3 tokens"),
        ("model.length=100", "more than the 66 tokens"),
        ("model.template='{document} {query}'", "must hold {query} and then {document}"),
        ("model.lora={frozen: nf4}", "cannot be nf4"),
    ],
)
def test_what_does_not_fit_is_one_line(override, words, pair_sections, tmp_path):
    with pytest.raises(UserError, match=words):
        train(load_recipe(pair_sections, [override]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
