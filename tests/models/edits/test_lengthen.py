"""Longer inputs from the command line: in every command that reads documents, and in exports."""

import json

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.contract.long_inputs import parse_long_inputs
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.build import load_encoder
from embedtrain.models.edits.lengthen import lengthen_encoder

KEYS = ["cat", "dog", "bird", "tree", "house"]
DOCUMENTS = [" ".join([*["the"] * 64, *[key] * 90]) for key in KEYS]
"""What tells them apart stands behind the 64 tokens that the tiny models have positions for."""


def run(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


def found_share(model, cache):
    found = Subject(model, "x", cache).search(
        [f"{key} " * 40 for key in KEYS], DOCUMENTS, 1, "query"
    )
    return float(np.mean(found.indices[:, 0] == np.arange(len(KEYS))))


@pytest.mark.parametrize(
    ("family", "method"),
    [
        *(("bert", method) for method in ("grouped", "interpolated", "recurrent")),
        *(("llama", method) for method in ("grouped", "interpolated", "ntk", "self_extend")),
    ],
)
def test_what_stands_beyond_the_window_is_found(family, method, request, cache):
    path = request.getfixturevalue(family)
    alike = encode_texts(load_encoder(path), DOCUMENTS, "document")
    assert np.abs(alike - alike[0]).max() < 1e-6  # without longer positions it sees no difference
    longer = lengthen_encoder(load_encoder(path), parse_long_inputs(f"{method}:160"))
    assert found_share(longer, cache) > 0.5


def test_an_export_is_read_by_sentence_transformers(bert, tmp_path):
    done = run("export", bert, "--output", tmp_path / "m", "--long-inputs", "interpolated:160")
    assert done.exit_code == 0, done.output
    theirs = SentenceTransformer(str(tmp_path / "m"), device="cpu")
    assert theirs.max_seq_length == 160
    ours = encode_texts(load_encoder(str(tmp_path / "m")), DOCUMENTS, "document")
    np.testing.assert_allclose(theirs.encode(DOCUMENTS), ours, atol=2e-6)
    assert np.abs(ours[0] - ours[1]).max() > 1e-3


@pytest.mark.parametrize(
    ("family", "wish", "message"),
    [
        ("llama", "self_extend:160", "cannot be written as plain files"),
        ("llama", "grouped:160", "cannot be written into the config of rotary"),
        ("bert", "ntk:160", "is for rotary positions"),
        ("bert", "grouped", "is not METHOD:LENGTH"),
    ],
)
def test_an_export_that_plain_files_cannot_express_is_refused(
    family, wish, message, request, tmp_path
):
    source = request.getfixturevalue(family)
    done = run("export", source, "--output", tmp_path / "m", "--long-inputs", wish)
    assert isinstance(done.exception, UserError)
    assert message in str(done.exception)
    assert not (tmp_path / "m").exists()


def test_documents_of_another_model_are_not_lengthened_here(bert):
    model = load_encoder(bert)
    model.contract = model.contract.model_copy(update={"document_model": "other"})
    with pytest.raises(UserError, match="another model encodes here; got 'other'"):
        lengthen_encoder(model, parse_long_inputs("grouped:160"))


def test_two_ways_of_reading_the_same_weights_share_no_vectors(llama, cache):
    keys = {
        Subject(lengthen_encoder(load_encoder(llama), parse_long_inputs(wish)), "x", cache).key
        for wish in (None, "grouped:160", "interpolated:160", "ntk:160", "ntk:192")
    }
    assert len(keys) == 5


def test_commands_that_read_documents_take_long_ones(bert, beir, tmp_path, write_jsonl):
    corpus = write_jsonl([{"text": text} for text in DOCUMENTS], "long.jsonl")
    longer = ("--long-inputs", "grouped:160")
    for name, more in (("short", ()), ("long", longer)):
        done = run("encode", bert, corpus, "--output", tmp_path / f"{name}.npy", *more)
        assert done.exit_code == 0, done.output
    short, long = (np.load(tmp_path / f"{name}.npy") for name in ("short", "long"))
    assert np.abs(short - short[0]).max() == 0
    assert np.abs(long - long[0]).max() > 1e-3
    shards = run("encode", bert, corpus, "--output", tmp_path / "shards", *longer)
    assert shards.exit_code == 0, shards.output
    np.testing.assert_array_equal(np.load(tmp_path / "shards" / "part-00000.npy"), long)
    done = run("evaluate", bert, "--data", beir, "--output", tmp_path / "e.json", *longer)
    assert done.exit_code == 0, done.output
    plain = run("evaluate", bert, "--data", beir, "--output", tmp_path / "f.json")
    assert plain.exit_code == 0, plain.output
    named = [
        json.loads((tmp_path / name).read_text())["model"]["weights"]
        for name in ("e.json", "f.json")
    ]
    assert named[0] != named[1]
    hit = run("search", bert, "green bird", "--data", corpus, "--top", "1", *longer)
    assert hit.exit_code == 0, hit.output
    probe = run("probe", bert, "passkey", "--length", "90", "--size", "4", *longer)
    assert probe.exit_code == 0, probe.output
