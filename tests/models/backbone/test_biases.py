"""Of a backbone the biases alone are trained, as many numbers as the source counts."""

import pytest
import torch
from transformers import AutoConfig, AutoModel

from embedtrain.errors import UserError
from embedtrain.models.backbone.biases import train_biases_only
from embedtrain.models.backbone.loading import BackboneConfig, load_backbone


def test_berts_biases_are_a_thousandth_of_it():
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.for_model("bert"))
    train_biases_only(model, "bert")
    sizes = {name: one.numel() for name, one in model.named_parameters() if one.requires_grad}
    assert all(name.endswith(".bias") for name in sizes)
    # A layer: q, k, v, two projections and two norms of the width, and one of the inner width.
    # Besides the norm of the embeddings and the pooler.
    assert sum(sizes.values()) == 12 * (7 * 768 + 3072) + 768 + 768 == 102_912


def test_a_backbone_without_biases_is_refused(llama):
    with pytest.raises(UserError, match=r"of which this backbone has none; got 'llama'.*lora"):
        load_backbone(llama, BackboneConfig(train="biases"))
    with pytest.raises(ValueError, match="leave one of them out"):
        BackboneConfig.model_validate({"train": "biases", "lora": {"rank": 2}})
