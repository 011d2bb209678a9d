"""`embedtrain encode --spans`: a vector for every span of every row."""

import numpy as np
import pytest
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.contract.spans import mark
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, load_dense, save_encoder
from embedtrain.models.dense.config import DenseConfig
from embedtrain.workflows.encode.spans import encode_spans

ROWS = [
    {"sentence": "the red cat jumps", "spans": [[4, 11], [[0, 3], [12, 17]]]},
    {"sentence": "a small dog", "spans": [[2, 11]]},
]


@pytest.fixture(scope="module")
def model(bert, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("spans")
    save_encoder(build_dense(DenseConfig(backbone=bert, spans="mlp")), folder)
    return str(folder)


def test_the_command_writes_a_row_for_each_span_and_how_many_a_text_has(
    model, write_jsonl, tmp_path
):
    path, output = write_jsonl(ROWS), tmp_path / "out" / "vectors.npy"
    command = ["encode", model, str(path), "--spans", "--output", str(output), "--side", "query"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "3 spans x 32" in done.output
    texts = [mark(row["sentence"], span) for row in ROWS for span in row["spans"]]
    expected = encode_texts(load_dense(model), texts, "query")
    np.testing.assert_allclose(np.load(output), expected, atol=1e-6)
    assert np.load(output.with_suffix(".lengths.npy")).tolist() == [2, 1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "red cat"}, "1 spans must be a list"),
        ({"text": "red cat", "spans": []}, "1 spans must be a list"),
        ({"text": "red cat", "spans": [[0, 3], [5, 50]]}, "1 spans does not ascend within the 7"),
        ({"text": 3, "spans": [[0, 3]]}, "1 holds something other than a text"),
        ({"other": "red"}, "1 has no column"),
    ],
)
def test_a_row_that_is_not_usable_is_refused_with_its_line(
    model, row, message, write_jsonl, tmp_path
):
    with pytest.raises(UserError, match=message):
        encode_spans(model, write_jsonl([row]), tmp_path / "v.npy")
    assert not (tmp_path / "v.npy").exists()


def test_models_and_files_without_spans_are_refused(
    bert, model, late_interaction, write_jsonl, tmp_path
):
    path, plain = write_jsonl(ROWS), tmp_path / "plain.txt"
    plain.write_text("red\n")
    (tmp_path / "blank.jsonl").write_text("\n")
    for folder, texts, message in (
        (bert, path, "needs a model with vectors for spans"),
        (late_interaction, path, "needs a model with vectors for spans"),
        (model, plain, "jsonl only"),
        (model, tmp_path / "blank.jsonl", "holds no row"),
    ):
        with pytest.raises(UserError, match=message):
            encode_spans(folder, texts, tmp_path / "v.npy")
    for more in (["--format", "parquet"], ["--output", str(tmp_path / "folder")]):
        command = ["encode", model, str(path), "--spans", "--output", str(tmp_path / "v.npy")]
        assert "--spans goes" in str(CliRunner().invoke(app, [*command, *more]).exception)
