import torch
from pretrain_parts import autoencoder, masked_batch, objective_of

from embedtrain.models.chunking import Execution


def test_only_masked_tokens_of_the_partner_are_rebuilt(bert):
    objective = objective_of("cot_mae", decoder_weight=0.5)
    batch = masked_batch(objective.masking, [9, 9, 12, 7])
    out = autoencoder(bert, "cot_mae", double=True)(batch, Execution())
    assert sorted(out.decoder.labels.tolist()) == sorted(
        batch.texts.ids[batch.decoder_masked].tolist()
    )
    result = objective(out)
    expected = result.metrics["encoder_loss"] + 0.5 * result.metrics["decoder_loss"]
    assert torch.allclose(result.loss, expected)


def test_it_asks_for_pairs_and_a_plain_decoder():
    objective = objective_of("cot_mae")
    assert objective.masking.pairs
    assert objective.computation.decoder == "plain"
