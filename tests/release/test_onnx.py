"""Graphs run by onnxruntime give the vectors of torch."""

import pytest
import torch
from pair_toys import SIZES, save_classifier, save_pair_tokenizer
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.contract.texts import Pooling
from embedtrain.encoding.cross_encoder import CrossEncoder
from embedtrain.errors import UserError
from embedtrain.models.build import (
    build_dense,
    build_encoder,
    load_model,
    save_dense,
    save_encoder,
    save_model,
)
from embedtrain.models.cross_encoder.build import build_cross_encoder, load_cross_encoder
from embedtrain.models.cross_encoder.config import CrossEncoderConfig
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.late_interaction.config import LateInteractionConfig
from embedtrain.models.pooling import pack_states, pool
from embedtrain.release import onnx as workflow
from embedtrain.release import onnx_graph
from embedtrain.release.onnx import check_onnx, export_onnx
from embedtrain.release.padded_graphs import pool_padded

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("known_operations")


@pytest.mark.parametrize("pooling", Pooling.__args__)
def test_pooling_of_padded_states_is_that_of_packed_ones(pooling):
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(4, 6, 3, generator=generator)
    lengths = torch.tensor([6, 1, 3, 5])
    mask = (torch.arange(6) < lengths[:, None]).long()
    packed, found = pack_states(states, mask.bool())
    assert torch.allclose(pool_padded(states, mask, pooling), pool(packed, found, pooling))


@pytest.mark.parametrize(
    ("backbone", "settings"),
    [
        ("shallow_bert", {"projection": 8, "query": {"prompt": "query: "}}),
        pytest.param("roberta", {"pooling": "max", "similarity": "dot"}, marks=pytest.mark.prove),
        pytest.param("llama", {"pooling": "last_token"}, marks=pytest.mark.prove),
    ],
)
def test_a_dense_graph_holds_pooling_projection_and_normalisation(
    backbone, settings, request, tmp_path
):
    torch.manual_seed(1)
    path = request.getfixturevalue(backbone)
    save_dense(build_dense(DenseConfig(backbone=path, **settings)), tmp_path)
    assert export_onnx(tmp_path) == tmp_path / "onnx" / "embedding.onnx"


def test_a_late_interaction_graph_expands_queries_and_masks_documents(late_interaction, tmp_path):
    from embedtrain.models.build import load_encoder

    save_encoder(load_encoder(late_interaction), tmp_path)
    export_onnx(tmp_path)


def test_models_that_a_graph_cannot_express_are_refused(bert, tmp_path, monkeypatch):
    config = LateInteractionConfig(
        kind="late_interaction", backbone=bert, dim=8, pool_factor=2, query={"length": 12}
    )
    save_encoder(build_encoder(config), tmp_path)
    with pytest.raises(UserError, match="no graph for more than projected"):
        export_onnx(tmp_path)
    monkeypatch.setattr(onnx_graph, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"embedtrain\[onnx\]"):
        export_onnx(tmp_path)


def test_a_graph_with_other_vectors_does_not_stay(shallow_bert, tmp_path, monkeypatch):
    save_dense(build_dense(DenseConfig(backbone=shallow_bert)), tmp_path)
    real = workflow.save_onnx

    def save_another(model, folder, *form):
        path = real(model, folder, *form)
        with torch.no_grad():
            model.backbone.encoder.layer[0].output.dense.bias[3].add_(1)
        return path

    monkeypatch.setattr(workflow, "save_onnx", save_another)
    with pytest.raises(UserError, match="gives other query vectors than torch"):
        export_onnx(tmp_path)
    assert not (tmp_path / "onnx").exists()


def test_the_command_line_adds_the_graph(shallow_bert, tmp_path):
    done = CliRunner().invoke(
        app, ["export", shallow_bert, "--output", str(tmp_path / "m"), "--onnx"]
    )
    assert done.exit_code == 0, done.output
    assert "same vectors through onnxruntime" in done.output
    from embedtrain.models.build import load_encoder

    model = load_encoder(str(tmp_path / "m"))
    assert check_onnx(model, tmp_path / "m" / "onnx" / "embedding.onnx") < 1e-5


@pytest.mark.parametrize(
    ("family", "num_labels"),
    [
        ("bert", 2),
        *(
            pytest.param(family, 1, marks=pytest.mark.prove)
            for family in ("xlm_roberta", "modernbert_mean", "llama")
        ),
    ],
)
def test_a_graph_scores_pairs_as_torch_does(family, num_labels, tmp_path):
    folder = tmp_path / "model"
    save_model(
        load_cross_encoder(
            str(save_classifier(tmp_path / "first", family, num_labels=num_labels, seed=3))
        ),
        folder,
    )
    assert export_onnx(folder) == folder / "onnx" / "model.onnx"
    assert check_onnx(load_model(str(folder)), folder / "onnx" / "model.onnx") < 1e-5


@pytest.mark.prove
def test_the_log_odds_of_an_answer_have_a_graph_too(tmp_path, capsys):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = SIZES | {"num_key_value_heads": 2, "initializer_range": 0.3, "pad_token_id": 1}
    LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained(tmp_path / "first")
    save_pair_tokenizer(tmp_path / "first", "llama")
    config = CrossEncoderConfig(
        kind="cross_encoder", backbone=str(tmp_path / "first"), scorer="yes_no",
        template="[CLS] {query} [SEP] {document} [SEP]", yes_word="red", no_word="cat",
    )  # fmt: skip
    model = build_cross_encoder(config, torch.device("cpu"))
    save_model(model, tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("# M\n")
    assert export_onnx(tmp_path / "model").name == "score.onnx"
    check_the_card(tmp_path / "model", capsys)


def check_the_card(folder, capsys):
    """Run what the card says and compare with what the model itself says."""
    script = (folder / "README.md").read_text().split("```python\n")[-1].split("```")[0]
    script = script.replace("path/to/this/folder", str(folder))
    for before, text in (("your query", "red cat"), ("another document", "the house"), ("a document", "a small dog runs")):  # fmt: skip
        script = script.replace(f'"{before}"', f'"{text}"')
    exec(script, {})
    found = [float(one.strip("[] ")) for one in capsys.readouterr().out.splitlines()]
    pairs = [("red cat", "a small dog runs"), ("red cat", "the house")]
    ours = CrossEncoder(str(folder)).logits(pairs)
    assert abs(ours[0] - ours[1]) > 1e-3
    assert found == pytest.approx(ours.tolist(), abs=1e-4)


@pytest.mark.prove
def test_the_card_says_once_how_to_run_a_graph_of_pairs(tmp_path, capsys):
    save_model(load_cross_encoder(str(save_classifier(tmp_path / "first", "bert"))), tmp_path / "m")
    card = tmp_path / "m" / "README.md"
    card.write_text("# M\n\n## Use\n\nSo.\n")
    for _ in range(2):
        export_onnx(tmp_path / "m")
    assert card.read_text().startswith("# M\n\n## Use\n\nSo.\n\n## ONNX\n")
    assert card.read_text().count("## ONNX") == 1
    check_the_card(tmp_path / "m", capsys)


@pytest.mark.prove  # as one with other vectors does
def test_a_graph_with_other_scores_does_not_stay(tmp_path, monkeypatch):
    save_model(load_cross_encoder(str(save_classifier(tmp_path / "first", "bert"))), tmp_path / "m")
    real = workflow.save_onnx

    def save_another(model, folder, *form):
        path = real(model, folder, *form)
        with torch.no_grad():
            model.head.last.bias.add_(0.01)
        return path

    monkeypatch.setattr(workflow, "save_onnx", save_another)
    with pytest.raises(UserError, match="gives other scores than torch"):
        export_onnx(tmp_path / "m")
    assert not (tmp_path / "m" / "onnx").exists()
