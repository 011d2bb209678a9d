"""Graphs run by onnxruntime give the vectors of torch."""

import pytest
import torch
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.contract.texts import Pooling
from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, build_encoder, save_dense, save_encoder
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.late_interaction.encoder import LateInteractionConfig
from embedtrain.models.pooling import pack_states, pool
from embedtrain.release import onnx as workflow
from embedtrain.release import onnx_graph
from embedtrain.release.onnx import check_onnx, export_onnx
from embedtrain.release.onnx_graph import pool_padded

pytest.importorskip("onnxruntime")


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
        ("bert", {"projection": 8, "query": {"prompt": "query: "}}),
        ("roberta", {"pooling": "max", "similarity": "dot"}),
        ("llama", {"pooling": "last_token"}),
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


def test_a_graph_with_other_vectors_does_not_stay(bert, tmp_path, monkeypatch):
    save_dense(build_dense(DenseConfig(backbone=bert)), tmp_path)
    real = workflow.save_onnx

    def save_another(model, folder):
        path = real(model, folder)
        with torch.no_grad():
            model.backbone.encoder.layer[0].output.dense.bias[3].add_(1)
        return path

    monkeypatch.setattr(workflow, "save_onnx", save_another)
    with pytest.raises(UserError, match="gives other query vectors than torch"):
        export_onnx(tmp_path)
    assert not (tmp_path / "onnx").exists()


def test_the_command_line_adds_the_graph(bert, tmp_path):
    done = CliRunner().invoke(app, ["export", bert, "--output", str(tmp_path / "m"), "--onnx"])
    assert done.exit_code == 0, done.output
    assert "same vectors through onnxruntime" in done.output
    from embedtrain.models.build import load_encoder

    model = load_encoder(str(tmp_path / "m"))
    assert check_onnx(model, tmp_path / "m" / "onnx" / "embedding.onnx") < 1e-5
