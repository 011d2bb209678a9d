"""`trained` in --quantize and --index: vectors are stored as the model was made for."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.contract.stored import StoredOutputs
from embedtrain.errors import UserError
from embedtrain.models.build import load_dense, load_encoder, save_encoder
from embedtrain.models.edits.shrink import shrink
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.release.export import export
from embedtrain.retrieval.compression import Compression, pack_codes
from embedtrain.workflows.encode.file import encode
from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks
from embedtrain.workflows.prepare import trained_contract
from embedtrain.workflows.search import Searcher
from embedtrain.workflows.train import train

STORED = StoredOutputs(quantize=("binary", "int8"), dims=(32, 16, 8), scoring="both")


@pytest.fixture
def made_for_bits(bert, tmp_path):
    model = load_dense(bert)
    stored = STORED.model_copy(update={"dims": (model.dim, 16, 8)})
    model.contract = model.contract.model_copy(update={"outputs": stored})
    save_encoder(model, tmp_path / "bits")
    assert load_encoder(str(tmp_path / "bits")).contract.outputs == stored
    return str(tmp_path / "bits")


def trained(model, pairs, objective, **end):
    content = {
        "data": {"sources": [{"path": str(pairs)}]},
        "model": {"backbone": model},
        "objective": objective,
        "trainer": {"steps": 1},
    }
    return trained_contract(load_recipe(content), load_encoder(model), end).outputs


def test_the_contract_says_what_the_objective_trained_for(bert, late_interaction, pairs):
    inner = {"name": "info_nce"}
    bits = {"name": "outputs", "inner": inner, "matryoshka": [8, 16], "scoring": "both"}
    around = {"name": "sum", "objectives": [inner, bits]}
    dim = load_dense(bert).dim
    for objective in (bits, around):
        found = trained(bert, pairs, objective)
        assert found == StoredOutputs(quantize=("binary",), dims=(dim, 16, 8), scoring="both")
    assert trained(bert, pairs, inner) is None
    one = {"name": "outputs", "inner": inner, "quantize": ["int8", "ternary"]}
    assert trained(late_interaction, pairs, one).quantize == ("int8", "ternary")


def test_training_without_codes_forgets_them(made_for_bits, pairs):
    assert trained(made_for_bits, pairs, {"name": "info_nce"}) is None


def test_what_is_not_wholly_trained_says_what_its_start_says_too(bert, made_for_bits, pairs):
    plain = {"name": "info_nce"}
    bits = {
        "name": "outputs",
        "inner": plain,
        "quantize": ["binary", "int8"],
        "matryoshka": [16, 8],
    }
    bits["scoring"] = "both"
    known = load_encoder(made_for_bits).contract.outputs
    assert trained(made_for_bits, pairs, plain, exports_start=True) == known
    assert trained(bert, pairs, bits, exports_start=True) is None
    assert trained(bert, pairs, bits, blend=0.5) is None
    assert trained(bert, pairs, bits, blend=1.0) == known
    assert trained(made_for_bits, pairs, bits, blend=0.5) == known


def test_an_export_of_a_run_says_what_its_model_says(bert, pairs, tmp_path):
    content = {
        "data": {"sources": [{"path": str(pairs)}]},
        "model": {"backbone": bert},
        "objective": {"name": "outputs", "inner": {"name": "info_nce"}},
        "trainer": {"steps": 1, "batch_size": 4, "accelerator": "cpu"},
    }
    run = train(load_recipe(content), tmp_path / "run")
    known = load_encoder(str(run.model)).contract
    assert known.outputs is not None
    assert load_encoder(str(export(run.path, tmp_path / "out"))).contract == known


def test_a_cut_model_keeps_the_sizes_that_are_left(made_for_bits):
    assert shrink(load_dense(made_for_bits), dim=16).contract.outputs.dims == (16, 8)
    assert shrink(load_dense(made_for_bits), dim=12).contract.outputs is None


@pytest.mark.parametrize("kind", ["int8", "binary", "ternary", "trained"])
def test_a_file_holds_the_codes_of_the_floats(made_for_bits, sentences, tmp_path, kind, capsys):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(sentences) + "\n", encoding="utf-8")
    encode(made_for_bits, texts, tmp_path / "floats.npy")
    encode(made_for_bits, texts, tmp_path / "codes.npy", quantize=kind)
    floats, codes = (np.load(tmp_path / f"{name}.npy") for name in ("floats", "codes"))
    if kind == "trained":
        assert "made for bits and bytes of" in capsys.readouterr().err
    expected = pack_codes(floats, "binary" if kind == "trained" else kind)
    assert codes.dtype == expected.dtype
    assert np.array_equal(codes, expected)


def test_evaluate_and_search_store_as_the_model_was_made_for(made_for_bits, beir, capsys):
    def scores(**asked):
        (found,) = evaluate_tasks(made_for_bits, Wish([str(beir)], efficiency=False, **asked))
        return found.per_query, found.model.settings, capsys.readouterr().err

    bits = scores(compression=Compression(quantize="binary"))
    own = scores(compression=Compression(quantize="trained"))
    assert own[:2] == bits[:2]
    assert "Stored as bits: made for bits and bytes of" in own[2]
    index = scores(index="trained")
    assert index[:2] == scores(index="binary")[:2]
    floats = scores()
    assert floats[0] != bits[0]
    assert "--quantize trained" in floats[2]
    query = json.loads((beir / "queries.jsonl").read_text().splitlines()[0])["text"]
    found = [Searcher(made_for_bits, str(beir), index=one) for one in ("trained", "binary")]
    first, second = ([hit.document_id for hit in one.search(query, 3)] for one in found)
    assert first == second


def test_a_model_that_was_made_for_floats_is_told_so(bert, beir, sentences, tmp_path, sparse_model):
    with pytest.raises(UserError, match="--quantize is for models that were trained or turned"):
        evaluate_tasks(bert, Wish([str(beir)], compression=Compression(quantize="trained")))
    with pytest.raises(UserError, match="--index is for models that were trained or turned"):
        Searcher(bert, str(beir), index="trained")
    texts = tmp_path / "texts.txt"
    texts.write_text(sentences[0] + "\n", encoding="utf-8")
    for model, output, kind in ((bert, "a.npy", "trained"), (sparse_model, "a.npz", "binary")):
        words = ["encode", model, str(texts), "--output", str(tmp_path / output)]
        failed = CliRunner().invoke(app, [*words, "--quantize", kind])
        assert isinstance(failed.exception, UserError), failed.output
        assert not (tmp_path / output).exists()
