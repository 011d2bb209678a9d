"""Late chunking from the command line."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import load_encoder
from embedtrain.models.dense.late_chunking import chunk_late

LONG = " ".join(["the red cat runs over a small tree"] * 10)
SHORT = "a blue dog"


def run(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_encoding_writes_a_row_per_chunk_and_where_it_stands(bert, tmp_path, write_jsonl):
    corpus = write_jsonl([{"title": "one", "text": LONG}, {"text": SHORT}], "corpus.jsonl")
    output = tmp_path / "v.npy"
    done = run("encode", bert, corpus, "--output", output, "--late-chunks", "16")
    assert done.exit_code == 0, done.output
    vectors, lengths = np.load(output), np.load(tmp_path / "v.lengths.npy")
    assert lengths.tolist() == [6, 1]
    rows = [json.loads(line) for line in (tmp_path / "v.chunks.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == [0] * 6 + [1]
    text = f"one {LONG}"
    assert "".join(text[row["start"] : row["end"]] for row in rows[:-1]) == text
    expected = encode_texts(chunk_late(load_encoder(bert), 16), [text, SHORT], "document")
    np.testing.assert_array_equal(vectors, expected.values)


def test_a_document_is_found_by_its_best_chunk(bert, tmp_path, write_jsonl):
    corpus = write_jsonl([{"text": f"{LONG} {SHORT} sleeps"}, {"text": LONG}], "corpus.jsonl")
    done = run("search", bert, SHORT, "--data", corpus, "--top", "2", "--late-chunks", "4")
    assert done.exit_code == 0, done.output
    model = chunk_late(load_encoder(bert), 4)
    vectors = encode_texts(model, [f"{LONG} {SHORT} sleeps"], "document").values
    query = encode_texts(model, [SHORT], "query").values
    assert f"{(vectors @ query[0]).max():.3f}"[:4] in done.output


def test_retrieval_is_evaluated_by_chunks(bert, beir, tmp_path):
    for name, more in (("whole", ()), ("long", ("64",)), ("short", ("2",))):
        flags = ("--late-chunks", *more) if more else ()
        output = tmp_path / f"{name}.json"
        done = run("evaluate", bert, "--data", beir, "--output", output, *flags)
        assert done.exit_code == 0, done.output
    whole, long, short = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("whole", "long", "short")
    )
    assert whole["per_query"] == long["per_query"]  # every document is one chunk
    assert whole["per_query"] != short["per_query"]
    assert len({result["model"]["weights"] for result in (whole, long, short)}) == 3
    sizes = [result["efficiency"]["bytes_per_document"] for result in (whole, short)]
    assert sizes[1] > 2 * sizes[0]


def test_the_passkey_probe_takes_chunks(bert):
    done = run("probe", bert, "passkey", "--length", "90", "--size", "4", "--late-chunks", "16")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("encode", "{bert}", "{file}", "--output", "x.npy", "--side", "query"),
            "is for documents",
        ),
        (("encode", "{bert}", "{file}", "--output", "folder"), "go into one .npy file"),
        (("encode", "{late}", "{file}", "--output", "x.npy"), "one vector per text"),
        (
            ("evaluate", "{bert}", "--data", "{sts}", "--output", "x"),
            "is for documents of retrieval",
        ),
        (("evaluate", "{bert}", "--mteb", "local", "--output", "x"), "--mteb does not go with"),
    ],
)
def test_where_it_does_not_apply_it_is_refused(
    arguments, message, bert, late_interaction, write_jsonl
):
    places = {
        "bert": bert,
        "late": late_interaction,
        "file": write_jsonl([{"text": SHORT}]),
        "sts": write_jsonl(
            [{"sentence1": "a", "sentence2": "b", "score": score} for score in (1, 2, 3)], "s.jsonl"
        ),
    }
    done = run(*(one.format(**places) for one in arguments), "--late-chunks", "8")
    assert isinstance(done.exception, UserError), done.output
    assert message in str(done.exception)
