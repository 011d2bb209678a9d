"""What the decoder can and cannot see, on tiny models in float64; blocks A1 to A5 of the specifications."""

from dataclasses import replace

import pytest
import torch
from pretrain_parts import autoencoder, masked_batch, objective_of
from torch.utils._python_dispatch import TorchDispatchMode

from embedtrain.models.chunking import Execution
from embedtrain.models.pretraining.decoding import decode
from embedtrain.packed import Texts

FAMILIES = ("bert", "roberta", "modernbert")
NAMES = ("condenser", "cot_mae", "dupmae", "mexma", "mlm", "retromae", "simlm")
WHOLE = Execution(10_000)


def decoded(model, batch, vectors):
    """Return the decoder's hidden states of one text, a row per ordinary token."""
    return decode(model.decoder, model.language, model.computation, batch, vectors, None)


def with_token(batch, place, token):
    ids = batch.texts.ids.clone()
    ids[place] = token
    return replace(batch, texts=Texts(ids, batch.texts.lengths))


@pytest.fixture(params=FAMILIES)
def one_text(bert, request):
    model = autoencoder(bert, "retromae", family=request.param, double=True)
    batch = masked_batch(objective_of("retromae").masking, [9])
    vectors = torch.randn(1, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return model, batch, vectors


def seen_by(batch) -> torch.Tensor:
    """Which columns each row of the single text may see, written out from the definition."""
    width = len(batch.texts.ids)
    seen = ~batch.decoder_draws.T[batch.decoder_picks]
    seen[torch.arange(width), torch.arange(width)] = False
    seen[1:, 0] = True
    return seen


@torch.no_grad()
def test_a_row_changes_exactly_with_the_tokens_it_sees_and_never_with_its_own(one_text):
    model, batch, vectors = one_text
    before = decoded(model, batch, vectors)
    seen = seen_by(batch)
    for column in range(1, 8):  # the ordinary tokens
        token = (int(batch.texts.ids[column]) + 1) % 60
        after = decoded(model, with_token(batch, column, max(token, 5)), vectors)
        for row in range(1, 8):
            same = torch.equal(before[row - 1], after[row - 1])
            assert same == (not seen[row, column]), (row, column)
            if row == column:
                assert same


@torch.no_grad()
def test_rows_computed_together_equal_rows_computed_alone(bert):
    model = autoencoder(bert, "retromae", double=True)
    batch = masked_batch(objective_of("retromae").masking, [9, 12, 5])
    vectors = torch.randn(3, 32, dtype=torch.float64)
    together = decoded(model, batch, vectors)
    layer, embeddings = model.decoder.layers[0], model.language
    alone = []
    for number in range(3):
        text = batch.select(torch.tensor([number]))
        width = len(text.texts.ids)
        places = torch.arange(width)
        context = embeddings.embed(text.texts.ids, places)
        context = torch.cat([vectors[number : number + 1], context[1:]])
        # The columns of a text are its own, whatever is beside it in the batch.
        seen = seen_by(replace(text, decoder_picks=places))
        for row in range(1, width - 1):
            query = vectors[number] + embeddings.position_vectors(places[row : row + 1])
            visible = context[seen[row]]
            everything = torch.ones(1, 1, len(visible), dtype=torch.bool)
            state = layer(query[None], visible[None], everything)[0]
            alone.append(embeddings.transform(state))
    assert torch.allclose(together, torch.cat(alone), atol=1e-12)


def encoder_layer_gradients(model) -> list[torch.Tensor]:
    return [p.grad for p in model.language.layers.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", ["retromae", "dupmae", "simlm", "cot_mae"])
def test_the_decoder_reaches_the_encoder_through_the_vectors_only(bert, name):
    objective = objective_of(name)
    model = autoencoder(bert, name)
    model.generator = None
    batch = masked_batch(objective.masking, [9, 12, 7, 7])
    vectors = model(batch, WHOLE).vectors
    for chosen, expected in ((vectors, True), (vectors.detach(), False)):
        model.zero_grad()
        decoded(model, batch, chosen[batch.partners]).square().sum().backward(retain_graph=True)
        moved = any(g.abs().max() > 0 for g in encoder_layer_gradients(model))
        assert moved == expected
        assert model.language.model.get_input_embeddings().weight.grad.abs().max() > 0


@torch.no_grad()
def test_other_states_of_the_encoder_than_the_vector_do_not_reach_the_decoder(bert, monkeypatch):
    model = autoencoder(bert, "cot_mae")
    batch = masked_batch(objective_of("cot_mae").masking, [9, 12])
    before = model(batch, WHOLE)
    run = model.encoder.states
    first = torch.tensor([0, 12])  # longest text first

    def disturbed(texts, **options):
        states = run(texts, **options)
        noise = torch.randn_like(states)
        noise[first] = 0
        return states + noise

    monkeypatch.setattr(model.encoder, "states", disturbed)
    after = model(batch, WHOLE)
    assert torch.equal(before.decoder.hidden, after.decoder.hidden)
    assert not torch.equal(before.encoder.hidden, after.encoder.hidden)


@torch.no_grad()
def test_spans_of_a_pair_are_decoded_from_each_others_vector(bert):
    model = autoencoder(bert, "cot_mae", double=True)
    batch = masked_batch(objective_of("cot_mae").masking, [9, 12, 7, 8])
    out = model(batch, WHOLE)
    lengths = batch.texts.lengths
    by_length = lengths.argsort(descending=True, stable=True)
    chunk = batch.select(by_length)
    expected = decoded(model, chunk, out.vectors[by_length ^ 1])
    assert torch.allclose(out.decoder.hidden, expected, atol=1e-12)
    masked = chunk.texts.ids[chunk.decoder_masked]
    assert out.decoder.labels.equal(masked)


@pytest.mark.parametrize("name", NAMES)
def test_chunks_and_rematerialisation_change_neither_loss_nor_gradients(bert, name):
    objective = objective_of(name)
    batch = masked_batch(objective.masking, [9, 24, 5, 16, 16, 3])
    results = {}
    for key, execution in {
        "whole": WHOLE,
        "chunks": Execution(30),
        "again": Execution(30, rematerialize=True),
        "half": Execution(30, rematerialize=0.5),
    }.items():
        model = autoencoder(bert, name, double=True)
        model.generator = None  # its samples would differ
        output = objective(model(batch, execution))
        output.loss.backward()
        gradients = {
            n: p.grad for n, p in model.named_parameters() if p.grad is not None and p.requires_grad
        }
        results[key] = (output.loss, gradients)
    loss, gradients = results["whole"]
    for other in ("chunks", "again", "half"):
        assert torch.allclose(results[other][0], loss, rtol=1e-12)
        assert results[other][1].keys() == gradients.keys()
        for key, gradient in gradients.items():
            assert torch.allclose(results[other][1][key], gradient, rtol=1e-9, atol=1e-11), key


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", NAMES)
def test_every_trained_parameter_gets_a_gradient_with_any_backbone(bert, family, name):
    objective = objective_of(name)
    model = autoencoder(bert, name, family=family).train()
    batch = masked_batch(objective.masking, [9, 24, 5, 16])
    objective(model(batch, WHOLE)).loss.backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


def test_padding_and_packing_give_the_same_outputs(bert):
    for name in ("condenser", "dupmae", "mexma"):
        batch = masked_batch(objective_of(name).masking, [9, 24, 5, 16])
        with torch.no_grad():
            ours, theirs = (
                autoencoder(bert, name, double=True, packing=packing)(batch, WHOLE)
                for packing in ("packed", "padded")
            )
        assert torch.allclose(ours.decoder.hidden, theirs.decoder.hidden, atol=1e-10)
        assert torch.allclose(ours.vectors, theirs.vectors, atol=1e-10)


def test_a_text_in_which_nothing_is_masked_gives_a_finite_loss(bert):
    for name in NAMES:
        objective = objective_of(name)
        batch = masked_batch(objective.masking, [2, 2])  # special tokens only
        model = autoencoder(bert, name)
        loss = objective(model(batch, WHOLE)).loss
        loss.backward()
        assert loss.isfinite()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


class LargestStorage(TorchDispatchMode):
    """Remembers the largest storage that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, torch.Tensor):
                size = value.untyped_storage().nbytes() // max(value.element_size(), 1)
                self.numbers = max(self.numbers, size)
        return out


@pytest.mark.parametrize("name", ["mlm", "retromae", "dupmae", "simlm"])
def test_no_logits_of_all_tokens_are_stored(bert, name, monkeypatch):
    """The vocabulary is 103, the states 32 wide: logits would be the largest tensor by far."""
    for tile in ("linear_cross_entropy.CPU_TILE", "maxsim.token_maximum.CPU_TILE"):
        monkeypatch.setattr(f"embedtrain.ops.{tile}", 2000)
    monkeypatch.setattr("embedtrain.models.pretraining.generator.TILE", 2000)
    objective = objective_of(name)
    batch = masked_batch(objective.masking, [24] * 40)
    model = autoencoder(bert, name, length=24).train()
    vocabulary, tokens = len(model.language.weight), len(batch.texts.ids)
    with LargestStorage() as largest:
        objective(model(batch, Execution(200, rematerialize=True))).loss.backward()
    assert largest.numbers <= 40 * vocabulary * 4 + tokens * 32
    assert largest.numbers < 0.6 * tokens * vocabulary


def test_the_diagnosis_decodes_from_other_vectors_and_changes_no_random_number(bert):
    objective = objective_of("retromae")
    batch = masked_batch(objective.masking, [9, 12, 7, 8])
    model = autoencoder(bert, "retromae", dropout=0.5).train()
    torch.manual_seed(1)
    plain = model(batch, WHOLE)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    diagnosed = model(batch, WHOLE, diagnose=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(diagnosed.decoder.hidden, plain.decoder.hidden)
    assert plain.shuffled is None
    assert diagnosed.shuffled.labels.equal(diagnosed.decoder.labels)
    assert not torch.equal(diagnosed.shuffled.hidden, diagnosed.decoder.hidden)


def test_training_makes_the_decoder_use_the_vectors(bert):
    """Each text repeats one word: who knows the vector knows the word, who has another's does not."""
    torch.manual_seed(0)
    objective = objective_of("retromae", decoder_mask_ratio=0.99)
    model = autoencoder(bert, "retromae").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(200):
        batch = masked_batch(objective.masking, [10] * 32, seed=step)
        words = torch.randint(5, 25, (32,), generator=torch.Generator().manual_seed(step))
        repeated = words.repeat_interleave(10).where(~batch.special, batch.texts.ids)
        hidden = batch.encoder_ids.where(batch.encoder_ids == 4, repeated)
        batch = replace(batch, texts=Texts(repeated, batch.texts.lengths), encoder_ids=hidden)
        out = model(batch, WHOLE, diagnose=step == 199)
        loss = objective(out)
        optimizer.zero_grad()
        loss.loss.backward()
        optimizer.step()
    right = loss.metrics["decoder_loss"]
    wrong = torch.nn.functional.cross_entropy(
        out.shuffled.hidden @ out.weight.T + out.bias, out.shuffled.labels
    )
    assert right < 0.5
    assert wrong > right + 1


def test_a_share_of_rematerialisation_encodes_that_many_chunks_again(bert):
    batch = masked_batch(objective_of("retromae").masking, [9, 24, 5, 16, 16, 3])

    def num_encoded(share: float) -> int:
        model, calls = autoencoder(bert, "retromae"), []
        model(batch, WHOLE)  # the first time packing is checked
        model.encoder.backbone.register_forward_hook(lambda *_: calls.append(1))
        objective_of("retromae")(model(batch, Execution(30, share))).loss.backward()
        return len(calls)

    chunks = num_encoded(0.0)
    assert chunks == 4
    assert num_encoded(0.5) == chunks + 2
    assert num_encoded(1.0) == chunks + chunks - 1
