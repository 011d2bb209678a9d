"""A cross-encoder from its recipe to the folder that others load: the runs that encoders stand, it stands too."""

import csv
import json
import re
import signal
import sys

import numpy as np
import pytest
import torch
from forks import embedtrain, signal_on_call
from pair_toys import NO_DROPOUT, SIZES, marked_rows, save_classifier, save_pair_tokenizer
from places import SCRIPTS
from rank_toys import exported_weights

sys.path.insert(0, str(SCRIPTS))
from distributed_cases import on_ranks

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
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    found = [row | {"scores": [2.0, 1.0, 0.0, 0.0]} for row in marked_rows(40, 0)]
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = save_classifier(tmp_path_factory.mktemp("start"), "bert")
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.fixture(scope="module")
def sections(rows, start):
    return {
        "data": {"sources": [{"path": str(rows)}]},
        "model": {"kind": "cross_encoder", "backbone": start, "query_length": 8, "length": 32},
        "objective": {"name": "info_nce"},
        "trainer": {
            "steps": 6, "batch_size": 8, "chunk_tokens": 90, "learning_rate": 1e-3,
            "checkpoint_every": 2, "log_every": 2, "rematerialize": True,
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(sections, tmp_path_factory):
    return train(load_recipe(sections), tmp_path_factory.mktemp("runs") / "run")


@pytest.mark.usefixtures("fresh_reloads")
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
    with pytest.raises(UserError, match="can end at a layer and no more"):
        export(again, tmp_path / "less", dim=1)


@pytest.mark.usefixtures("forked")
def test_an_exit_that_was_trained_is_a_reranker_of_its_own(sections, tmp_path):
    from sentence_transformers import CrossEncoder as Theirs

    objective = "objective={name: multi_exit, inner: {name: info_nce}}"
    run = train(load_recipe(sections, ["model.exits=[1]", objective]), tmp_path / "run")
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
def test_the_end_of_training_tells_how_many_pairs_were_cut(sections, tmp_path, capsys, times, told):
    path = tmp_path / "rows.jsonl"
    rows = [row | {"positive": f"{row['positive']} " * times} for row in marked_rows(40, 0)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changed = sections | {
        "data": {"sources": [{"path": str(path)}]},
        "trainer": sections["trainer"] | {"steps": 1},
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


def test_a_killed_run_ends_with_the_same_bits(sections, run, tmp_path):
    (tmp_path / "recipe.yaml").write_text(json.dumps(sections | {"description": "x"}))
    done = embedtrain(
        ["train", tmp_path / "recipe.yaml", "--output", tmp_path / "run"],
        before=lambda: signal_on_call(RetrievalModule, "training_step", 4, signal.SIGKILL),
    )
    assert done.returncode == -signal.SIGKILL
    resume(tmp_path / "run")
    ours, theirs = exported_weights(tmp_path / "run"), exported_weights(run.path)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def train_on_rank(sections, overrides, folder):
    train(load_recipe(sections, overrides), folder)


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_train_what_one_trains(strategy, sections, beir, tmp_path):
    validation = f"validation={{path: {beir}, split: dev, every_steps: 2, top: 7}}"
    plain = ["model.dropout=0.0", "trainer.steps=4", validation]
    train(load_recipe(sections, plain), tmp_path / "alone")
    shared = [*plain, "trainer.devices=2", f"trainer.strategy={strategy}"]
    on_ranks(2, train_on_rank, sections, shared, tmp_path / "ranks")
    ours, theirs = exported_weights(tmp_path / "ranks"), exported_weights(tmp_path / "alone")
    error = sum(float((value - theirs[name]).square().sum()) for name, value in ours.items())
    norm = sum(float(value.square().sum()) for value in theirs.values())
    assert (error / norm) ** 0.5 < 1e-4
    measured = [figures_of(tmp_path / name / "metrics.csv") for name in ("ranks", "alone")]
    assert measured[0] == pytest.approx(measured[1])


def figures_of(path):
    """What validation said, of the rows that have it."""
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/ndcg_at_10"]]
    return {f"{row['step']} {k}": float(v) for row in rows for k, v in row.items() if "val/" in k}


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("first", ["bm25", "model", "run"])
def test_validation_orders_what_a_first_stage_found(first, sections, beir, bert, tmp_path, capsys):
    if first == "run":
        lines = [f"q{q} Q0 d{d} {d} {9 - d} x" for q in range(10) for d in range(q % 3 + 1)]
        (tmp_path / "first.trec").write_text("\n".join(lines))
    stage = {"bm25": "null", "model": bert, "run": f"'run:{tmp_path}/first.trec'"}[first]
    asked = f"{{path: {beir}, split: dev, every_steps: 2, first_stage: {stage}, top: 5}}"
    run = train(load_recipe(sections, [f"validation={asked}"]), tmp_path / "run")
    figures = figures_of(run.metrics)
    steps = sorted({name.split()[0] for name in figures})
    assert steps == ["2", "4", "6"]
    names = ("ndcg_at_10", "mrr_at_10", "recall_at_10")
    assert all(f"{step} val/{name}" in figures for step in steps for name in names)
    firsts = {figures[f"{step} val/first_ndcg_at_10"] for step in steps}
    assert len(firsts) == 1, "the first stage is not trained"
    for step in steps:
        found = (figures[f"{step} val/{prefix}recall_at_10"] for prefix in ("", "first_"))
        assert len(set(found)) == 1, "order changes no recall of the whole list"
    assert (run.checkpoints / "best.ckpt").is_file()
    assert re.search(r"nDCG@10 is 0\.\d+ as they come", " ".join(capsys.readouterr().err.split()))


@pytest.mark.usefixtures("forked")
def test_sources_may_have_objectives_of_their_own(sections, rows, tmp_path):
    graded = {"path": str(rows), "objective": {"name": "rank_net", "weights": "ndcg_loss2pp"}}
    sources = [{"path": str(rows), "objective": {"name": "binary_cross_entropy"}}, graded]
    recipe = load_recipe(sections | {"data": {"sources": sources}})
    assert [one.temperature for one in recipe.objectives[1:]] == [1.0]
    assert (recipe.objectives[0].scale, recipe.objectives[0].bias) == (1.0, 0.0)
    train(recipe, tmp_path / "run")


@pytest.mark.usefixtures("forked")
def test_scores_of_binary_cross_entropy_are_probabilities_to_readers(sections, tmp_path):
    run = train(
        load_recipe(sections | {"objective": {"name": "binary_cross_entropy"}}), tmp_path / "run"
    )
    config = json.loads((run.model / "config.json").read_text())
    assert config["sentence_transformers"]["activation_fn"].endswith("Sigmoid")
    assert "log-odds of being relevant" in (run.model / "README.md").read_text()


@pytest.mark.usefixtures("forked")
def test_adapters_are_trained_and_folded_in(sections, tmp_path):
    overrides = ["model.lora={rank: 2}", "trainer.learning_rate=0.01"]
    run = train(load_recipe(sections, overrides), tmp_path / "run")
    assert (run.adapter / "adapter_model.safetensors").is_file()
    before, after = CrossEncoder(sections["model"]["backbone"]), CrossEncoder(str(run.model))
    assert not np.allclose(before.logits(PAIRS), after.logits(PAIRS), atol=1e-3)
    resumed = torch.load(sorted(run.checkpoints.glob("step-*"))[-1])["state_dict"]
    assert all("lora_" in name or ".head." in name for name in resumed), "the rest is frozen"


@pytest.mark.usefixtures("forked")
def test_a_backbone_without_a_head_gets_one(sections, bert, tmp_path):
    run = train(load_recipe(sections, [f"model.backbone={bert}"]), tmp_path / "run")
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


def test_the_doctor_and_the_check_know_pairs(sections):
    recipe = load_recipe(sections, ["model.dropout=0.0"])
    assert diagnose(recipe).healthy
    report = check(recipe)
    assert report.estimate.tokens_per_step > 8 * 4 * 5
    assert report.estimate.plan.parts["vectors"] == 0


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
def test_what_does_not_fit_is_one_line(override, words, sections, tmp_path):
    with pytest.raises(UserError, match=words):
        train(load_recipe(sections, [override]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
