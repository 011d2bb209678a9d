import torch
import torch.nn.functional as F
from pretrain_parts import autoencoder, masked_batch, objective_of

from embedtrain.models.chunking import Execution


def test_the_loss_is_the_cross_entropy_at_masked_tokens(bert):
    objective = objective_of("mlm")
    batch = masked_batch(objective.masking, [9, 12])
    model = autoencoder(bert, "mlm", double=True)
    out = model(batch, Execution())
    ids = torch.zeros(2, 12, dtype=torch.int64)
    mask = torch.arange(12) < torch.tensor([[9], [12]])
    ids[mask] = batch.encoder_ids
    model.encoder.use_padded_attention()
    logits = model.language.model(input_ids=ids, attention_mask=mask.long()).logits[mask]
    labels = batch.texts.ids.masked_fill(~batch.encoder_masked, -100)
    assert torch.allclose(objective(out).loss, F.cross_entropy(logits, labels), atol=1e-10)


def test_it_asks_for_the_head_and_no_decoder():
    objective = objective_of("mlm", mask_ratio=0.15)
    assert objective.keeps_head
    assert objective.computation.decoder == "none"
    assert objective.masking.encoder_ratio == 0.15
