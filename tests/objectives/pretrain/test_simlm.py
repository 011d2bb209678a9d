import pytest
import torch
from pretrain_parts import architecture, autoencoder, masked_batch, objective_of
from pydantic import ValidationError

from embedtrain.models.chunking import Execution
from embedtrain.models.pretraining import generator


@pytest.fixture
def parts(bert):
    objective = objective_of("simlm")
    return objective, masked_batch(objective.masking, [9, 12, 20]), autoencoder(bert, "simlm")


def gradients(model) -> list[torch.Tensor]:
    return [p.grad for p in model.generator.parameters() if p.grad is not None]


def test_the_generator_learns_from_its_own_loss_only(parts):
    objective, batch, model = parts
    objective.model_copy(update={"generator_weight": 0.0})(
        model(batch, Execution())
    ).loss.backward()
    assert all(gradient.abs().max() == 0 for gradient in gradients(model))
    objective(model(batch, Execution())).loss.backward()
    assert any(gradient.abs().max() > 0 for gradient in gradients(model))


def test_a_frozen_generator_has_no_loss_and_stays_in_evaluation_mode(bert, tmp_path):
    from embedtrain.models.pretraining.folder import save_masked_autoencoder
    from embedtrain.models.pretraining.generator import GeneratorConfig

    small = autoencoder(bert, "mlm")
    save_masked_autoencoder(small, tmp_path / "small", with_head=True)
    config = GeneratorConfig(backbone=str(tmp_path / "small"), train=False)
    objective = objective_of("simlm")
    model = autoencoder(bert, "simlm", generator=config).train()
    out = model(masked_batch(objective.masking, [9, 12]), Execution())
    objective(out).loss.backward()
    assert out.generator is None
    assert gradients(model) == []
    assert not any(p.requires_grad for p in model.generator.parameters())
    assert not model.generator.language.training
    assert model.language.training


def test_masked_places_hold_samples_and_the_others_the_text(parts):
    _, batch, model = parts
    chunk = model.generator.fill([batch])[0][0]
    for side in ("encoder", "decoder"):
        ids, masked = getattr(chunk, f"{side}_ids"), getattr(chunk, f"{side}_masked")
        assert ids[~masked].equal(batch.texts.ids[~masked])
        assert (ids[masked] != batch.texts.ids[masked]).float().mean() > 0.5  # it is not trained
    both = chunk.encoder_masked
    assert not chunk.encoder_ids[both].equal(chunk.decoder_ids[both])


def test_a_perfect_generator_leaves_a_copy_task(parts, monkeypatch):
    _, batch, model = parts
    chunk = batch.select(torch.tensor([2, 1, 0]))  # longest first
    labels = iter([chunk.texts.ids[chunk.encoder_masked], chunk.texts.ids[chunk.decoder_masked]])
    monkeypatch.setattr(generator, "sample_tokens", lambda *_: next(labels))
    out = model(batch, Execution())
    assert out.figures["encoder_changed_ratio"] == 0
    assert out.figures["decoder_changed_ratio"] == 0
    assert len(out.encoder.labels) == len(out.decoder.labels) == int((~batch.special).sum())


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_samples_follow_the_softmax(monkeypatch, kind):
    monkeypatch.setattr(generator, "TILE", 40)
    torch.manual_seed(0)
    weight, bias = torch.randn(5, 3).to(kind), torch.randn(5).to(kind)
    hidden = torch.randn(1, 3).to(kind).expand(20_000, 3)
    drawn = generator.sample_tokens(hidden, weight, bias).bincount(minlength=5) / 20_000
    expected = (hidden[0].float() @ weight.float().T + bias.float()).softmax(0)
    assert torch.allclose(drawn, expected, atol=0.02)


def test_a_decoder_that_hides_less_than_the_encoder_is_refused():
    with pytest.raises(ValidationError, match="at least encoder_mask_ratio"):
        objective_of("simlm", decoder_mask_ratio=0.2)


def test_the_generator_may_be_smaller(parts):
    _, _, model = parts
    assert model.generator.language.backbone.width == architecture(width=16).width
