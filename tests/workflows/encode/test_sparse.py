"""Texts into files of sparse vectors, one or many."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse
import torch
from sparse_toys import TEXTS, sparse_encoder, weights_of
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.errors import UserError
from embedtrain.models.build import load_encoder, save_encoder
from embedtrain.retrieval.sparse.vector_file import load_vectors


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


def run(*words):
    return CliRunner().invoke(app, ["encode", *map(str, words)])


@pytest.fixture(scope="module")
def weights(sparse_model):
    return weights_of(load_encoder(sparse_model), TEXTS).numpy()


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_one_file_holds_the_entries_and_words_stand_beside(
    sparse_model, texts, weights, tmp_path, ending
):
    output = tmp_path / f"out.{ending}"
    done = run(sparse_model, texts, "--output", output)
    assert done.exit_code == 0, done.output
    np.testing.assert_allclose(load_vectors(output).dense(), weights, atol=1e-6)
    words = json.loads((tmp_path / "out.words.json").read_text())
    assert len(words) == weights.shape[1]
    assert "cat" in words
    assert words[-1] == str(len(words) - 1)  # a row of the head that is no token


def test_bytes_are_smaller(sparse_model, texts, weights, tmp_path):
    output = tmp_path / "out.npz"
    assert run(sparse_model, texts, "--output", output, "--quantize", "int8").exit_code == 0
    np.testing.assert_allclose(load_vectors(output).dense(), weights, atol=weights.max() / 509)


@pytest.mark.parametrize("form", ["npy", "parquet"])
def test_shards_hold_all_rows(sparse_model, texts, weights, tmp_path, form):
    folder = tmp_path / "shards"
    done = run(sparse_model, texts, "--output", folder, "--format", form, "--rows-per-shard", 2)
    assert done.exit_code == 0, done.output
    if form == "npy":
        parts = [scipy.sparse.load_npz(folder / f"part-0000{n}.npz").toarray() for n in (0, 1)]
        found = np.concatenate(parts)
    else:
        found = np.zeros_like(weights)
        for number in (0, 1):
            for row in pq.read_table(folder / f"part-0000{number}.parquet").to_pylist():
                found[row["row"], row["indices"]] = row["values"]
    np.testing.assert_allclose(found, weights, atol=1e-6)
    assert len(json.loads((folder / "vectors.words.json").read_text())) == weights.shape[1]


def test_a_file_for_other_vectors_is_refused(sparse_model, bert, texts, tmp_path):
    for words, message in (
        ((sparse_model, texts, "--output", tmp_path / "a.npy"), "must end in .npz or .safetensors"),
        ((bert, texts, "--output", tmp_path / "a.npz"), "must end in .npy for the vectors"),
        ((sparse_model, texts, "--output", tmp_path / "a.npz", "--quantize", "binary"), "is int8"),
        ((sparse_model, texts, "--output", tmp_path / "a", "--quantize", "int8"), "for one file"),
    ):
        failed = run(*words)
        assert isinstance(failed.exception, UserError), failed.output
        assert message in str(failed.exception)


def test_texts_without_a_word_of_weight_are_kept_and_told(masked_model, texts, tmp_path):
    model = sparse_encoder(masked_model)
    with torch.no_grad():
        model.head.language.model.cls.predictions.decoder.bias.fill_(-1e4)
    save_encoder(model, tmp_path / "zero")
    done = run(tmp_path / "zero", texts, "--output", tmp_path / "out.npz")
    assert load_vectors(tmp_path / "out.npz").lengths.tolist() == [0, 0, 0]
    assert "Vectors of zeros, which score 0: 3 of 3 (document)" in done.output
    searched = ["search", tmp_path / "zero", "cat", "--data", texts]
    done = CliRunner().invoke(app, [str(word) for word in searched])
    assert (done.exit_code, done.stdout) == (0, "")
    assert "Nothing found" in done.output
