import torch
from pretrain_parts import autoencoder, masked_batch, objective_of

from embedtrain.models.chunking import Execution
from embedtrain.packed import Texts


def test_with_the_last_layer_the_head_is_a_deeper_mlm(bert):
    settings = {"early_layer": 1.0}
    objective = objective_of("condenser", **settings)
    batch = masked_batch(objective.masking, [12])
    model = autoencoder(bert, "condenser", double=True, objective_settings=settings)
    out = model(batch, Execution())
    states = model.encoder.states(Texts(batch.encoder_ids, batch.texts.lengths), packed=True)
    deeper = model.decoder.plain(states[None], torch.ones(1, 1, 12, dtype=torch.bool))[0]
    expected = model.language.transform(deeper[batch.encoder_masked])
    assert torch.allclose(out.decoder.hidden, expected, atol=1e-10)


def test_tokens_come_from_the_middle_and_the_vector_from_the_end(bert):
    objective = objective_of("condenser")
    batch = masked_batch(objective.masking, [12, 12])
    model = autoencoder(bert, "condenser", double=True)
    before = model(batch, Execution()).decoder.hidden
    last, first = model.language.layers[-1], model.language.layers[0]
    noise = torch.randn(24, 32, dtype=torch.float64)
    noise[[0, 12]] = 0  # the vectors stay
    hook = last.register_forward_hook(lambda _m, _i, out: out + noise)
    assert torch.equal(model(batch, Execution()).decoder.hidden, before)
    hook.remove()
    hook = first.register_forward_hook(lambda _m, _i, out: out + noise)
    assert not torch.allclose(model(batch, Execution()).decoder.hidden, before)
    hook.remove()
