import pytest
import torch
import torch.nn.functional as F
from pretrain_parts import masked_batch, objective_of

from embedtrain.errors import UserError
from embedtrain.models.chunking import Execution
from embedtrain.models.pretraining.folder import build_masked_autoencoder, save_masked_autoencoder
from embedtrain.models.pretraining.masked_autoencoder import MaskedAutoencoderConfig


def decoder(llama, **settings):
    torch.manual_seed(0)
    config = MaskedAutoencoderConfig(
        kind="masked_autoencoder",
        backbone=llama,
        attention="bidirectional",
        mask_token="[UNK]",
        pooling="mean",
        **settings,
    )
    return build_masked_autoencoder(config, objective_of("mntp").computation, 24).double().eval()


def test_a_token_is_predicted_from_the_state_before_it(llama):
    objective, model = objective_of("mntp"), decoder(llama)
    batch = masked_batch(objective.masking, [9, 12])
    ids = torch.zeros(2, 12, dtype=torch.int64)
    mask = torch.arange(12) < torch.tensor([[9], [12]])
    ids[mask] = batch.encoder_ids
    labels = torch.full((2, 12), -100)
    labels[mask] = batch.texts.ids.masked_fill(~batch.encoder_masked, -100)
    model.encoder.use_padded_attention()
    logits = model.language.model(input_ids=ids, attention_mask=mask.long()).logits
    expected = F.cross_entropy(
        logits[:, :-1].reshape(-1, logits.shape[2]), labels[:, 1:].reshape(-1)
    )
    for execution in (Execution(), Execution(12), Execution(12, rematerialize=True)):
        loss = objective(model(batch, execution)).loss
        torch.testing.assert_close(loss, expected, atol=1e-10, rtol=1e-10)


def test_a_hidden_first_token_is_not_predicted(llama):
    objective, model = objective_of("mntp"), decoder(llama)
    batch = masked_batch(objective.masking, [9, 12])
    batch.encoder_masked[[0, 9]] = True
    labels = model(batch, Execution()).encoder.labels
    assert len(labels) == int(batch.encoder_masked.sum()) - 2


def test_only_adapters_are_trained_and_not_in_the_head(llama):
    model = decoder(llama, lora={"rank": 2})
    objective = objective_of("mntp")
    objective(model(masked_batch(objective.masking, [9, 12]), Execution())).loss.backward()
    with_gradient = [n for n, p in model.named_parameters() if p.grad is not None]
    assert with_gradient
    assert all("lora_" in name and "lm_head" not in name for name in with_gradient)


def test_the_export_looks_both_ways(llama, tmp_path):
    from transformers import AutoModel

    save_masked_autoencoder(decoder(llama), tmp_path, with_head=False)
    model = AutoModel.from_pretrained(tmp_path).eval()
    ids = torch.tensor([[5, 6, 7], [5, 6, 8]])
    states = model(ids).last_hidden_state[:, 0]
    assert not torch.equal(states[0], states[1])


def test_a_mask_token_must_be_known(llama):
    config = MaskedAutoencoderConfig(kind="masked_autoencoder", backbone=llama, mask_token="<mask>")
    with pytest.raises(UserError, match="is not in the tokenizer's vocabulary; got '<mask>'"):
        build_masked_autoencoder(config, objective_of("mntp").computation, 24)
