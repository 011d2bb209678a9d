import pytest
import torch
import torch.nn.functional as F
from pretrain_parts import autoencoder, masked_batch, objective_of
from pydantic import ValidationError

from embedtrain.models.chunking import Execution


def test_the_loss_is_the_sum_of_masked_tokens_and_of_all_rebuilt_ones(bert):
    objective = objective_of("retromae")
    batch = masked_batch(objective.masking, [9, 12])
    out = autoencoder(bert, "retromae", double=True)(batch, Execution())
    parts = [
        F.cross_entropy(part.hidden @ out.weight.T + out.bias, part.labels)
        for part in (out.encoder, out.decoder)
    ]
    result = objective(out)
    assert torch.allclose(result.loss, sum(parts), atol=1e-12)
    assert torch.allclose(result.metrics["decoder_loss"], parts[1])
    assert len(out.encoder.labels) == int(batch.encoder_masked.sum())
    assert sorted(out.decoder.labels.tolist()) == sorted(batch.texts.ids[~batch.special].tolist())


def test_it_does_not_keep_the_head():
    assert not objective_of("retromae").keeps_head


@pytest.mark.parametrize("settings", [{"decoder_mask_ratio": 1.0}, {"mask": 0.5}])
def test_unusable_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        objective_of("retromae", **settings)
