"""A recipe names what is trained: layers, the part behind the backbone, pieces of weights' names."""

import pytest
import torch

from embedtrain.errors import UserError
from embedtrain.models.build import build_model
from embedtrain.models.chosen_weights import movements
from embedtrain.models.dense.config import DenseConfig


def build(backbone, *patterns, **settings):
    torch.manual_seed(0)
    settings = {"projection": 8, "learn_temperature": 0.05} | settings
    return build_model(
        DenseConfig.model_validate({"backbone": backbone, "train": patterns} | settings)
    )


def trained(model):
    return {name for name, one in model.named_parameters() if one.requires_grad}


def test_layers_and_the_part_behind_the_backbone_are_trained_and_no_more(bert):
    model = build(bert, "layers.1", "pooling")
    every = {name for name, _ in model.named_parameters()}
    last = {name for name in every if name.startswith("backbone.encoder.layer.1.")}
    assert len(last) == 16
    assert trained(model) == last | {"projection.weight", "log_temperature"}


def test_a_range_a_piece_of_it_and_a_piece_of_names(bert, llama):
    assert trained(build(bert, "layers.0-1")) == trained(build(bert, "encoder")), (
        "BERT's own name for its layers"
    )
    found = trained(build(llama, "layers.0-1.self_attn.q_proj", learn_temperature=None))
    assert found == {f"backbone.layers.{n}.self_attn.q_proj.weight" for n in (0, 1)}
    found = trained(build(bert, "query.bias", "embeddings.LayerNorm", learn_temperature=None))
    assert found == {
        *(f"backbone.encoder.layer.{n}.attention.self.query.bias" for n in (0, 1)),
        "backbone.embeddings.LayerNorm.weight", "backbone.embeddings.LayerNorm.bias",
    }  # fmt: skip


def test_biases_beside_the_part_behind_are_bitfit(bert):
    config = DenseConfig(backbone=bert, train="biases", projection=8, learn_temperature=0.05)
    assert trained(build(bert, "biases", "pooling")) == trained(build_model(config))


@pytest.mark.parametrize(
    ("patterns", "settings", "said"),
    [
        (("layers.1-2",), {}, r"got 'layers.1-2'. It has embeddings, layers.0, layers.1, pooling;"),
        (("layers.0", "pooling"), {"projection": None}, "got 'pooling'"),
        (("layers.0", "quary"), {}, "got 'quary'"),
    ],
)
def test_what_names_nothing_is_refused(bert, patterns, settings, said):
    with pytest.raises(UserError, match=said):
        build(bert, *patterns, **settings)


def test_each_part_says_how_far_it_moved(bert):
    start, after = build(bert, "layers.1", "pooling"), build(bert, "layers.1", "pooling")
    names = trained(after)
    with torch.no_grad():
        after.projection.weight *= 1.5
        for one in after.backbone.encoder.layer[1].parameters():
            one.mul_(0.9)
    rows = {row.part: row for row in movements(start, after, names)}
    assert list(rows) == ["embeddings", "layers.0", "layers.1", "pooling"]
    assert rows["layers.1"].moved == pytest.approx(0.1, rel=1e-5)
    assert (rows["layers.0"].moved, rows["layers.0"].num_trained) == (0, 0)
    projection, temperature = start.projection.weight, start.log_temperature
    whole = torch.cat([projection.flatten(), temperature]).norm()
    assert rows["pooling"].moved == pytest.approx(
        (0.5 * projection.norm() / whole).item(), rel=1e-5
    )
    assert rows["pooling"].num_trained == rows["pooling"].num_weights == projection.numel() + 1
