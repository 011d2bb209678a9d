"""Sparse models from recipe to folder: they train, resume and export, and the doctor finds their gradients exact."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sparse_toys import weights_of
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from embedtrain.errors import UserError
from embedtrain.models.build import build_encoder, load_encoder
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.recipe.run_folder import load_trained
from embedtrain.release.export import export
from embedtrain.resources import resource
from embedtrain.workflows import sparse_start
from embedtrain.workflows.doctor import diagnose
from embedtrain.workflows.train import resume, train

FOLDER = resource("recipes") / "sparse"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@pytest.fixture(scope="module")
def make(scored, small, masked_model):
    def make(name, *further):
        overrides = [f"data.sources=[{{path: {scored}}}]", f"model.backbone={masked_model}"]
        return load_recipe(FOLDER / f"{name}.yaml", [*small, *overrides, *further])

    return make


def rows_of(run) -> list[dict[str, str]]:
    with (run.path / "metrics.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("forked_reloads")
@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_trains_on_a_tiny_model(name, make, tmp_path, monkeypatch):
    if name != "splade":  # an export that is verified
        monkeypatch.setattr("embedtrain.release.export.verify", lambda *_: None)
    small = ["model.winners={entries: 150, winners: 2, binary: true}"] if name == "uhd" else []
    run = train(make(name, *small), tmp_path / "run")
    *_, last = rows_of(run)
    assert 0 < float(last["train/document_nnz"]) < 200
    assert 0 <= float(last["train/query_zero_share"]) <= 1
    assert (run.model / "embedtrain.json").is_file()


def test_chunks_give_the_gradients_of_the_whole_batch(make):
    steep = "objective.document.weight=100.0"
    diagnosis = diagnose(make("splade", steep, "trainer.precision=fp32"))
    assert diagnosis.healthy, diagnosis


def test_queries_start_at_the_rarity_of_their_tokens_and_learn_at_a_rate_of_their_own(
    make, tmp_path, monkeypatch
):
    monkeypatch.setattr("embedtrain.release.export.verify", lambda *_: None)
    slow = "trainer.learning_rate=1.0e-9"
    frozen = "model.query_weights={start: idf, trained: false}"
    still = train(make("inference_free", slow, frozen), tmp_path / "still")
    moved = train(make("inference_free", slow), tmp_path / "moved")
    weights = [
        load_encoder(str(run.model)).query_weights.effective.detach().numpy()
        for run in (still, moved)
    ]
    known = weights[0] > 0
    assert len(np.unique(weights[0][known])) > 5  # some tokens are rarer than others
    assert 0 < np.abs(weights[0] - weights[1]).max() < 0.1


def test_queries_start_at_what_a_file_says_of_tokens(make, masked_model, write_jsonl, tmp_path):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(masked_model)
    tokenization = build_encoder(make("splade").model).tokenization
    rows = [{"text": "cat cat dog"}, {"text": "cat"}, {"text": "cat"}]
    corpus = str(write_jsonl(rows, "corpus.jsonl"))
    cat, dog, red = tokenizer.convert_tokens_to_ids(["cat", "dog", "red"])
    start, size = sparse_start._starting_weights, len(tokenizer)
    found = start(corpus, tokenization, size, [])  # equal documents count once
    assert found[[cat, dog, red]] == pytest.approx(np.log1p([0.5 / 2.5, 1.5 / 1.5, 2.5 / 0.5]))
    listed = tmp_path / "idf.json"
    listed.write_text('{"cat": 1.5, "dog": 0, "fish and chips": 3}')
    found = start(str(listed), tokenization, size, [])
    assert (found[cat], found.sum()) == (1.5, 1.5)
    for text, message in (
        ("[1]", "is no object of tokens and weights"),
        ('{"cat": -1}', "gives the token 'cat' no weight of 0 or more; got -1"),
        ('{"cat": NaN}', "no weight of 0 or more; got nan"),
        ('{"Ġcat": 1}', "holds tokens of another tokenizer"),
    ):
        listed.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=message):
            start(str(listed), tokenization, size, [])
    with pytest.raises(UserError, match="start"):
        make("inference_free", "model.query_weights={start: idff}")


def test_entries_cost_where_there_are_none_is_refused(make):
    with pytest.raises(UserError, match="kind: sparse"):
        make("splade", "model={backbone: somewhere}")
    with pytest.raises(UserError, match=r"trainer\.accumulate"):
        make("splade", "trainer.accumulate=2")


def test_a_price_leaves_fewer_entries(make, tmp_path, monkeypatch):
    monkeypatch.setattr("embedtrain.release.export.verify", lambda *_: None)
    left = []
    for weight in (1.0e-9, 30.0):
        steep = ["objective.warmup_ratio=0.0", "trainer.steps=8", "trainer.learning_rate=0.01"]
        run = train(
            make("splade", *steep, f"objective.document.weight={weight}"), tmp_path / f"{weight}"
        )
        model = load_encoder(str(run.model))
        left.append((weights_of(model, ["a cat", "the dog runs"]) > 0).float().mean())
    assert left[1] < 0.7 * left[0]


def test_a_head_that_gives_every_word_weight_starts_with_as_many_as_are_asked_for(
    make, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("embedtrain.release.export.verify", lambda *_: None)
    monkeypatch.setattr(sparse_start, "TOO_MANY", 0.05)
    nothing = ["trainer.learning_rate=1.0e-9", "trainer.steps=1"]
    train(make("splade", *nothing), tmp_path / "plain")
    assert "start_entries=200" in capsys.readouterr().err
    run = train(make("splade", *nothing, "model.start_entries=7"), tmp_path / "few")
    assert "start_entries" not in capsys.readouterr().err
    (row,) = rows_of(run)
    assert float(row["train/document_nnz"]) == pytest.approx(7, abs=2)
    export(run.path, tmp_path / "again", sparse=True)  # of a run: its exported model
    assert (tmp_path / "again" / "embedtrain.json").is_file()


def test_a_price_that_follows_a_target_is_kept_in_the_checkpoint(make, tmp_path, monkeypatch):
    monkeypatch.setattr("embedtrain.release.export.verify", lambda *_: None)
    run = train(make("splade", "objective.document.target=1"), tmp_path / "run")
    newest = sorted(run.checkpoints.glob("*.ckpt"))[-1]
    logarithms, entries = torch.load(newest, weights_only=True)["prices"]
    assert logarithms[0][0] == 0  # queries have no target
    assert 0 < logarithms[0][1] <= 2 * 0.01 + 1e-9
    assert entries[0][1] == pytest.approx(float(rows_of(run)[-1]["train/document_nnz"]), rel=0.5)


def save_decoder(folder: Path, llama: str, *, tied: bool) -> str:
    """Save a decoder whose head is its input embeddings, or one that has none."""
    if not tied:
        return llama
    tokenizer = PreTrainedTokenizerFast.from_pretrained(llama)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig.from_pretrained(llama, tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_adapters_are_trained_and_folded_into_the_export(
    kind, make, masked_model, llama, tmp_path, monkeypatch
):
    monkeypatch.setattr("embedtrain.release.export.verify", lambda *_: None)
    backbone = masked_model
    if kind == "decoder":
        backbone = save_decoder(tmp_path / "decoder", llama, tied=True)
    adapted = [f"model.backbone={backbone}", "model.lora={rank: 2}", "trainer.learning_rate=0.05"]
    run = train(make("splade", *adapted), tmp_path / "run")
    state = torch.load(sorted(run.checkpoints.glob("*.ckpt"))[-1], weights_only=True)
    assert all("lora_" in name for name in state["state_dict"])
    shutil.rmtree(run.adapter)
    texts = ["a cat", "the dog runs"]
    trained = weights_of(load_trained(run, load_recipe(run.recipe)).eval(), texts)
    exported = weights_of(load_encoder(str(run.model)).eval(), texts)
    torch.testing.assert_close(exported, trained, atol=1e-5, rtol=1e-5)
    started = weights_of(build_encoder(load_recipe(run.recipe).model).eval(), texts)
    assert not torch.allclose(exported, started, atol=1e-2)


def test_adapters_under_a_head_of_random_numbers_are_refused(make, llama, tmp_path):
    with pytest.raises(UserError, match="has no head of its own"):
        train(make("splade", f"model.backbone={llama}", "model.lora={rank: 2}"), tmp_path / "run")


@pytest.mark.parametrize("name", ["splade", "csr"])
def test_a_resumed_run_ends_with_the_same_prices_and_counts(name, make, tmp_path, monkeypatch):
    monkeypatch.setattr("embedtrain.release.export.verify", lambda *_: None)
    own = {"splade": "objective.document.target=1", "csr": "model.code={entries: 50, kept: 2}"}
    steps = ["trainer.steps=4", "trainer.checkpoint_every=2", "trainer.learning_rate=0.01"]
    run = train(make(name, own[name], *steps), tmp_path / "run")
    whole = torch.load(newest := sorted(run.checkpoints.glob("step-*.ckpt"))[-1])
    newest.unlink()
    shutil.rmtree(run.model)
    resume(run.path)
    again = torch.load(newest)
    assert again["prices"] == whole["prices"]
    assert again["state_dict"].keys() == whole["state_dict"].keys()
    assert all(torch.equal(again["state_dict"][k], v) for k, v in whole["state_dict"].items())
    if name == "csr":
        idle = again["state_dict"]["model.head.idle_steps"]
        assert int(idle.max()) == 4  # once for each step
        assert int(idle.min()) == 0
        assert not any("backbone" in key for key in again["state_dict"])


def test_codes_of_a_batch_that_is_cut_or_of_words_are_refused(make, tmp_path):
    with pytest.raises(UserError, match=r"trainer\.accumulate"):
        make("csr", "trainer.accumulate=2")
    with pytest.raises(UserError, match=r"model\.head: code"):
        make("csr", "model={kind: sparse, head: vocabulary, backbone: somewhere}")


def test_chunks_give_a_code_the_gradients_of_the_whole_batch(make):
    freed = "model.freeze_backbone=false"
    sizes = "model.code={entries: 50, kept: 2}"
    diagnosis = diagnose(make("csr", freed, sizes, "trainer.precision=fp32"))
    assert diagnosis.healthy, diagnosis
