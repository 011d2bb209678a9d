"""Graphs for other runtimes and in smaller numbers, and tables for model2vec: near the model, or not there."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, load_dense, load_model, save_dense, save_model
from embedtrain.models.cross_encoder.build import load_cross_encoder
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.static.distil import Words, words_encoder
from embedtrain.release import openvino_graph
from embedtrain.release.calibration import choose_texts, feeds
from embedtrain.release.fidelity import by_text, distance, measure
from embedtrain.release.graph_runs import GraphEncoder, OnnxRuntime
from embedtrain.release.model2vec import export_model2vec
from embedtrain.release.onnx import Graphs, export_onnx
from embedtrain.release.openvino_graph import OpenvinoRuntime, export_openvino

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("known_operations")


@pytest.fixture(scope="module")
def texts():
    words = ["red", "cat", "dog", "house", "small", "runs", "the"]
    drawn = np.random.default_rng(0)
    return [f"{' '.join(drawn.choice(words, 1 + row % 12))} {row}" for row in range(80)]


@pytest.fixture
def folder(shallow_bert, tmp_path):
    torch.manual_seed(0)
    sides = {"query": {"prompt": "query: ", "length": 24}, "document": {"length": 32}}
    model = build_dense(DenseConfig(backbone=shallow_bert, **sides))
    for layer in model.backbone.encoder.modules():
        if isinstance(layer, torch.nn.Linear):
            # As they are drawn, layers add next to nothing to a word: what coarse numbers do to them would not show.
            layer.weight.data *= 10
    save_dense(model, tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("# M\n")
    return tmp_path / "model"


def test_a_folder_for_browsers_holds_states_and_vectors_in_all_numbers(folder, texts):
    import onnx

    said = []
    graphs = Graphs(("finished", "states"), "static", float16=True, texts=texts)
    assert export_onnx(folder, graphs, said.append) == folder / "onnx" / "embedding.onnx"
    names = {f"{form}{end}.onnx" for form in ("embedding", "model") for end in ("", "_fp16")}
    assert {path.name for path in (folder / "onnx").iterdir()} == names | {
        "embedding_int8.onnx", "model_quantized.onnx",
    }  # fmt: skip
    plain = OnnxRuntime(folder / "onnx" / "model.onnx")
    made = load_dense(str(folder)).tokenizer.model_input_names
    assert set(plain.names) == set(made)
    outputs = onnx.load(folder / "onnx" / "model.onnx").graph.output
    assert [one.name for one in outputs] == ["last_hidden_state", "sentence_embedding"]
    assert len(said) == 4
    assert all("a text alone and among others differs by up to" in line for line in said)
    card = (folder / "README.md").read_text()
    assert card.count("## ONNX") == 1
    assert '"query: " + "your query"' in card
    check_static(folder, texts)
    check_sizes_and_an_empty_mask(plain)


def check_static(folder, texts):
    model = load_dense(str(folder))
    runtime = OnnxRuntime(folder / "onnx" / "embedding_int8.onnx")
    found = measure(model, GraphEncoder(model, runtime), texts)
    assert found.mean < 1e-2
    assert found.apart < 1e-6  # ranges are those of the calibration, not of the batch
    stored = {one.data_type for one in _weights(folder / "onnx" / "embedding_int8.onnx")}
    assert 3 in stored  # int8


def _weights(path):
    import onnx

    return onnx.load(path).graph.initializer


def check_sizes_and_an_empty_mask(runtime):
    for shape in ((1, 1), (3, 7), (2, 32)):
        feed = {name: np.ones(shape, np.int64) for name in runtime.names}
        feed["token_type_ids"] = np.zeros(shape, np.int64)
        states, vectors = runtime(feed)
        assert states.shape[:2] == shape
        assert len(vectors) == shape[0]
        feed["attention_mask"][0] = 0
        assert all(np.isfinite(one).all() for one in runtime(feed))


def test_ranges_of_each_batch_are_an_explicit_choice(folder, texts):
    said = []
    export_onnx(folder, Graphs(int8="dynamic"), said.append)
    model = load_dense(str(folder))
    runtime = OnnxRuntime(folder / "onnx" / "embedding_int8.onnx")
    assert measure(model, GraphEncoder(model, runtime), texts).apart > 1e-5
    assert "cosine distance to float32" in said[0]


def test_openvino_gives_the_vectors_and_int8_is_independent_of_the_batch(folder, texts):
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    said = []
    path = export_openvino(folder, int8=True, texts=texts, say=said.append)
    assert path == folder / "openvino" / "openvino_model.xml"
    assert path.with_suffix(".bin").is_file()
    model = load_dense(str(folder))
    exact = measure(model, GraphEncoder(model, OpenvinoRuntime(path)), texts[:20])
    assert exact.largest < 1e-5
    quantized = path.with_name("openvino_model_qint8_quantized.xml")
    coarse = measure(model, GraphEncoder(model, OpenvinoRuntime(quantized)), texts)
    assert 1e-7 < coarse.mean < 1e-2
    assert coarse.apart < 1e-5
    assert len(said) == 1
    script = (folder / "README.md").read_text().split("```python\n")[-1].split("```")[0]
    lines = script.replace("path/to/this/folder", str(folder)).replace("print(", "found.append(")
    found = []
    exec(lines, {"found": found})
    ours = encode_texts(model, ["your query"], "query")
    assert distance(ours, found[0]) < 1e-3


def test_openvino_graphs_with_other_vectors_do_not_stay(folder, monkeypatch):
    pytest.importorskip("openvino")
    real = openvino_graph.save_onnx

    def save_another(model, *rest):
        real(model, *rest)
        with torch.no_grad():
            model.backbone.encoder.layer[0].output.dense.bias[3].add_(1)

    monkeypatch.setattr(openvino_graph, "save_onnx", save_another)
    with pytest.raises(UserError, match="gives other query vectors than torch"):
        export_openvino(folder)
    assert not (folder / "openvino").exists()


def test_calibration_takes_the_edges_too_and_refuses_few_texts(texts, folder):
    chosen = choose_texts([*texts, texts[0], " "])
    assert chosen[: len(texts)] == texts
    assert chosen[-4] == ""
    given = list(feeds(load_dense(str(folder)), chosen))
    assert sum(len(feed["input_ids"]) for feed in given) == 2 * len(chosen)  # under both prompts
    with pytest.raises(
        UserError, match="needs at least 64 different texts to set ranges by; got 2"
    ):
        choose_texts(["one", "two", "two"])


def test_the_distance_to_broken_vectors_is_the_largest():
    right = np.array([[1.0, 0.0]])
    assert distance(right, right) == 0
    assert distance(right, np.array([[np.nan, 0.0]])) == 2
    assert distance(right, np.array([[1.0, 0.0, 0.0]])) == 2


def run(*words):
    return CliRunner().invoke(app, ["export", *map(str, words)])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--int8"], "--int8 is for graphs"),
        (["--onnx", "--int8"], "needs texts that set its ranges"),
        (["--openvino", "--int8", "--dynamic"], "--dynamic is for the int8"),
        (["--openvino", "--fp16"], "--fp16 is for graphs"),
        (["--onnx", "--calibrate", "few.txt"], "--calibrate is for --int8"),
        (["--onnx", "--int8", "--calibrate", "few.txt"], "needs at least 64 different texts"),
    ],
)
def test_flags_that_do_not_go_together_write_nothing(words, said, bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few.txt").write_text("one\ntwo\n")
    done = run(bert, "--output", "out", *words)
    assert isinstance(done.exception, UserError)
    assert said in str(done.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "written", "said"),
    [
        ("late_interaction", Graphs(("states",)), "no place for several vectors per text"),
        ("cross_encoder", Graphs(float16=True), "whose graph is in float32 only"),
        ("sparse_model", Graphs(), "which has no graph"),
    ],
)
def test_models_without_such_a_graph_are_refused(kind, written, said, request, tmp_path):
    path = request.getfixturevalue(kind)
    loaded = load_cross_encoder(path) if kind == "cross_encoder" else load_model(path)
    save_model(loaded, tmp_path / "m")
    with pytest.raises(UserError, match=said):
        export_onnx(tmp_path / "m", written)
    assert not (tmp_path / "m" / "onnx").exists()


@pytest.fixture
def table_folder(tmp_path):
    words = Words(["the", "red", "cat", "dog", "runs", "a"])
    rows = torch.randn(len(words), 6, generator=torch.Generator().manual_seed(0))
    rows[0] = 0
    save_dense(words_encoder(words, rows), tmp_path / "table")
    return tmp_path / "table"


def test_a_table_reads_back_as_model2vec_reads_it(table_folder):
    (table_folder / "README.md").write_text("# M\n")
    written = export_model2vec(table_folder)
    config = json.loads((written / "config.json").read_text())
    assert config["normalize"] is True
    again = load_dense(str(written))
    texts = ["the red cat", "a dog runs", "nothing known: zzzz"]
    ours = encode_texts(load_dense(str(table_folder)), texts, "document")
    for one, other in zip(
        by_text(ours), by_text(encode_texts(again, texts, "document")), strict=True
    ):
        assert distance(one, other) < 1e-6
    assert "StaticModel.from_pretrained" in (table_folder / "README.md").read_text()


def test_a_transformer_is_no_table(folder):
    with pytest.raises(UserError, match="is no table of words"):
        export_model2vec(folder)
