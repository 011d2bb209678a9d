"""Pre-training through the same command, run folder and resuming as any other recipe."""

import csv
import json
import math
import signal
from pathlib import Path

import pytest
import torch
from forks import embedtrain, signal_on_call
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM

from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import load_dense
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.release.export import export
from embedtrain.resources import resource
from embedtrain.training.callbacks import list_checkpoints
from embedtrain.training.pretraining import PretrainModule
from embedtrain.workflows.check import check
from embedtrain.workflows.pipeline import load_pipeline, resume_pipeline, run_pipeline
from embedtrain.workflows.train import resume, train

NAMES = ("condenser", "cot_mae", "dupmae", "mlm", "retromae", "simlm")


@pytest.fixture(scope="module", autouse=True)
def trusted_exports():
    """Reloading each export in a fresh process takes long; one test here does it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedtrain.release.export.verify", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def runs(smoke, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for name in NAMES:
        train(smoke(name), folder / name)
    return {name: folder / name for name in NAMES}


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", NAMES)
def test_every_smoke_recipe_trains_logs_and_leaves_an_encoder(runs, name):
    rows = metrics(runs[name])
    assert [row["step"] for row in rows] == ["0", "2", "4", "6", "8"]
    assert float(rows[3]["train/encoder_loss"]) < float(rows[0]["train/encoder_loss"])
    assert float(rows[-1]["val/loss"]) > 0
    assert ("train/decoder_loss_shuffled" in rows[0]) == (name != "mlm")
    assert (runs[name] / "decoder" / "decoder.safetensors").is_file() == (name != "mlm")
    AutoModel.from_pretrained(runs[name] / "model")
    model = load_dense(str(runs[name] / "model"))
    assert model.contract.pooling == "cls"
    assert encode_texts(model, ["the cat runs"], "query").shape == (1, 64)
    assert "not an embedding model" in (runs[name] / "model" / "README.md").read_text()


def test_mexma_trains_on_parallel_rows_and_leaves_an_encoder(smoke, pairs, tmp_path):
    sources = f"data.sources=[{{path: {pairs}, column: query, translation: positive}}]"
    run = tmp_path / "run"
    train(smoke("mexma", sources), run)
    rows = metrics(run)
    assert float(rows[3]["train/decoder_loss"]) < float(rows[0]["train/decoder_loss"])
    for name in ("align_loss", "koleo_loss", "decoder_loss_shuffled"):
        assert math.isfinite(float(rows[0][f"train/{name}"]))
    assert float(rows[-1]["val/align_loss"]) > 0
    assert encode_texts(load_dense(str(run / "model")), ["the cat"], "query").shape == (1, 64)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.spans=split"], "data.spans: parallel goes with the objective mexma"),
        (["data.sources=[{path: x.jsonl}]"], "translation of a source is for data.spans: parallel"),
        (["trainer.batch_size=2"], "needs trainer.batch_size of 4 at least"),
        (["trainer.batch_size=5"], "batch_size must be even"),
    ],
)
def test_a_recipe_of_parallel_text_that_cannot_work_is_refused(smoke, overrides, said):
    parallel = "data.sources=[{path: x.jsonl, column: a, translation: b}]"
    with pytest.raises(UserError, match=said):
        smoke("mexma", parallel, *overrides)


@pytest.mark.parametrize("name", ["mlm", "dupmae", "retromae"])
def test_the_head_is_kept_where_a_later_stage_needs_it(runs, name):
    keys = load_file(runs[name] / "model" / "model.safetensors").keys()
    assert any("predictions.transform" in key for key in keys) == (name != "retromae")
    if name != "retromae":
        AutoModelForMaskedLM.from_pretrained(runs[name] / "model")


def test_the_encoder_is_fine_tuned_by_an_ordinary_recipe(runs, recipe, tmp_path):
    for name in ("retromae", "dupmae"):
        overrides = [f"model.backbone={runs[name] / 'model'}", "trainer.steps=2"]
        loaded = load_recipe(recipe, overrides)
        run = train(loaded, tmp_path / name)
        resolved = load_recipe(run.recipe)
        assert resolved.model.pooling == "cls"


def test_pretraining_goes_on_from_encoder_and_decoder_of_a_run(runs, smoke, tmp_path):
    run = runs["dupmae"]
    overrides = [
        f"model.backbone={run / 'model'}",
        "model.architecture=null",
        f"model.decoder.start={run / 'decoder'}",
        "trainer.steps=2",
    ]
    train(smoke("dupmae", *overrides), tmp_path / "more")
    before, after = metrics(run), metrics(tmp_path / "more")
    assert float(after[0]["train/loss"]) < float(before[0]["train/loss"]) - 0.2


@pytest.mark.parametrize(
    "name",
    ["dupmae", *(pytest.param(name, marks=pytest.mark.prove) for name in ("simlm", "cot_mae"))],
)
def test_a_killed_run_resumes_to_the_same_bits(runs, on_corpus, tmp_path, name):
    """With dropout, sampling by a generator, held-out losses and diagnoses in between."""
    recipe = resource("recipes") / "smoke" / f"pretrain_{name}.yaml"
    done = embedtrain(
        ["train", recipe, "--output", tmp_path / "run", *on_corpus],
        before=lambda: signal_on_call(PretrainModule, "training_step", 7),
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [p.name for p in list_checkpoints(tmp_path / "run/checkpoints")] == [
        "step-00000004.ckpt"
    ]
    resume(tmp_path / "run")
    ours, theirs = (
        torch.load(list_checkpoints(run / "checkpoints")[-1])["state_dict"]
        for run in (tmp_path / "run", runs[name])
    )
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key
    assert (tmp_path / "run/metrics.csv").read_text() == (runs[name] / "metrics.csv").read_text()


def test_rematerialised_chunks_end_with_the_same_weights(smoke, tmp_path):
    for name, overrides in {
        "plain": ["trainer.chunk_tokens=100000"],
        "chunked": ["trainer.chunk_tokens=60", "trainer.rematerialize=true"],
    }.items():
        without_dropout = "model.architecture.dropout=0.0"
        train(smoke("retromae", without_dropout, "trainer.steps=4", *overrides), tmp_path / name)
    ours, theirs = (
        load_file(tmp_path / name / "model/model.safetensors") for name in ("plain", "chunked")
    )
    for key, value in ours.items():
        assert torch.allclose(value, theirs[key], atol=1e-4), key


def test_bf16_and_other_families_train(smoke, tmp_path):
    for family in ("roberta", "modernbert"):
        overrides = [
            f"model.architecture.family={family}", "trainer.precision=bf16", "trainer.steps=4",
        ]  # fmt: skip
        train(smoke("dupmae", *overrides), tmp_path / family)
        assert float(metrics(tmp_path / family)[-1]["val/loss"]) > 0


def test_neither_held_out_losses_nor_the_log_change_a_run(runs, smoke, tmp_path):
    overrides = ["validation.every_steps=100", "trainer.log_every=3"]
    train(smoke("simlm", *overrides), tmp_path / "run")
    ours, theirs = (
        load_file(run / "model" / "model.safetensors") for run in (tmp_path / "run", runs["simlm"])
    )
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_a_run_is_not_continued_on_other_text(smoke, corpus, tmp_path):
    data = tmp_path / "corpus.jsonl"
    lines = corpus.read_text().splitlines(keepends=True)
    data.write_text("".join(lines))
    train(smoke("mlm", f"data.sources=[{{path: {data}}}]", "trainer.steps=1"), tmp_path / "run")
    data.write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match="was started on other training data"):
        resume(tmp_path / "run")


def test_check_reports_text_and_time(smoke):
    report = check(smoke("retromae"))
    assert report.estimate.num_steps == 8
    assert report.estimate.tokens_per_step > 60
    assert report.estimate.seconds_per_step > 0
    assert report.sources[0][1].num_documents == 50


def test_an_export_gives_the_same_vectors_in_a_fresh_process(runs, tmp_path, monkeypatch):
    monkeypatch.undo()
    folder = export(str(runs["dupmae"]), tmp_path / "out")
    ours, theirs = (
        encode_texts(load_dense(str(path)), ["the cat"], "query")
        for path in (folder, runs["dupmae"] / "model")
    )
    assert (ours == theirs).all()


def test_the_unified_embedding_is_trained_searched_and_exported(runs, recipe, beir, tmp_path):
    """DupMAE's head goes on working: vector and words are tuned together and survive the export."""
    overrides = [
        f"model.backbone={runs['dupmae'] / 'model'}",
        "model.projection=8",
        "model.words={kept: 20, dim: 16}",
        "trainer.steps=4",
        f"evaluation={{path: {beir}}}",
    ]
    run = train(load_recipe(recipe, overrides), tmp_path / "run")
    model = load_dense(str(run.model))
    assert encode_texts(model, ["the cat runs"], "query").shape == (1, 8 + 16)
    from embedtrain.workflows.search import Searcher

    assert len(Searcher(str(run.model), str(beir), "test").search("the cat", 3)) == 3
    before = load_file(runs["dupmae"] / "model" / "model.safetensors")
    after = load_file(run.model / "model.safetensors")
    head = "cls.predictions.transform.dense.weight"
    assert not torch.equal(before[head], after[head])


def test_an_exported_unified_embedding_is_reloaded_by_embedtrain_itself(
    runs, recipe, tmp_path, monkeypatch
):
    monkeypatch.undo()
    overrides = [
        f"model.backbone={runs['dupmae'] / 'model'}", "model.words={dim: 16}", "trainer.steps=1",
    ]  # fmt: skip
    run = train(load_recipe(recipe, overrides), tmp_path / "run")
    assert (run.model / "words.safetensors").is_file()
    resolved = load_recipe(run.recipe)
    assert resolved.model.words.dim == 16
    assert "16 coordinates for words" in (run.model / "README.md").read_text()


def test_tokenizer_pretraining_fine_tuning_and_scores_are_stages_of_one_run(
    corpus, pairs, beir, tmp_path
):
    path = resource("recipes") / "smoke" / "pretrain_then_contrastive.yaml"
    overrides = [
        f"tokenizer.sources=[{{path: {corpus}}}]",
        f"pretrain.data.sources=[{{path: {corpus}}}]",
        f"contrastive.data.sources=[{{path: {pairs}}}]",
        f"scores.path={beir}",
    ]
    run = tmp_path / "run"
    run_pipeline(load_pipeline(path, overrides), run)
    written = run / "scores" / "scores.json"
    assert "ndcg_at_10" in json.loads(written.read_text())
    assert load_recipe(run / "contrastive" / "recipe.yaml").model.pooling == "cls"
    before = (run / "contrastive" / "model" / "model.safetensors").stat().st_mtime_ns
    (run / "scores" / "scores.json").unlink()
    resume_pipeline(run)
    assert written.is_file()
    assert (run / "contrastive" / "model" / "model.safetensors").stat().st_mtime_ns == before
