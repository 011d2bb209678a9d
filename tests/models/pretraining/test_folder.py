import pytest
import torch
from places import ROOT
from pretrain_parts import architecture, autoencoder, objective_of
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from embedtrain.errors import UserError
from embedtrain.models.build import load_dense
from embedtrain.models.pretraining.decoding import DecoderConfig
from embedtrain.models.pretraining.folder import save_decoder, save_masked_autoencoder
from embedtrain.models.pretraining.generator import GeneratorConfig


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
@pytest.mark.parametrize("with_head", [False, True])
def test_the_encoder_is_saved_as_an_ordinary_folder(bert, tmp_path, family, with_head):
    model = autoencoder(bert, "retromae", family=family)
    save_masked_autoencoder(model, tmp_path, with_head=with_head)
    ids = torch.randint(5, 100, (1, 9))
    model.encoder.use_padded_attention()
    with torch.no_grad():
        ours = model.language.model.base_model(input_ids=ids).last_hidden_state
        theirs = AutoModel.from_pretrained(tmp_path).eval()(input_ids=ids).last_hidden_state
        assert torch.allclose(ours, theirs, atol=1e-6)
        if with_head:
            logits = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()(input_ids=ids).logits
            assert torch.allclose(model.language.model(input_ids=ids).logits, logits, atol=1e-6)
    assert AutoTokenizer.from_pretrained(tmp_path).mask_token == "[MASK]"
    assert load_dense(str(tmp_path)).contract.pooling == "cls"


def test_a_decoder_is_kept_apart_and_taken_up_again(bert, tmp_path):
    model = autoencoder(bert, "retromae")
    save_decoder(model, tmp_path)
    again = autoencoder(bert, "retromae", decoder=DecoderConfig(start=str(tmp_path)))
    plain = autoencoder(bert, "retromae")
    for name, value in model.decoder.state_dict().items():
        loaded = again.decoder.state_dict()[name]
        scale = 5 if value.ndim == 2 else 1  # the helper scales matrices, loaded ones too
        assert torch.allclose(loaded, scale * value), name
    assert plain.decoder.state_dict().keys() == model.decoder.state_dict().keys()


def test_decoders_that_do_not_fit_are_refused(bert, tmp_path):
    save_decoder(autoencoder(bert, "retromae"), tmp_path)
    with pytest.raises(UserError, match=r"decoder\.safetensors lacks 16 tensors"):
        autoencoder(bert, "cot_mae", decoder=DecoderConfig(start=str(tmp_path)))
    with pytest.raises(UserError, match=r"names no folder with a decoder\.safetensors"):
        autoencoder(bert, "retromae", decoder=DecoderConfig(start=str(tmp_path / "x")))


@pytest.mark.parametrize(
    ("objective", "settings", "message"),
    [
        ("mlm", {"decoder": DecoderConfig(num_layers=2)}, "model.decoder is of no use"),
        (
            "mlm",
            {"generator": GeneratorConfig(architecture=architecture())},
            "generator is of no use",
        ),
        ("simlm", {"generator": None}, "model.generator is missing"),
        ("simlm", {"generator": GeneratorConfig()}, "needs either backbone or architecture"),
        (
            "simlm",
            {"generator": GeneratorConfig(architecture=architecture(), train=False)},
            "would be random and never trained",
        ),
        ("retromae", {"length": 65}, "data.length is more than the 64 tokens"),
        ("retromae", {"num_layers": 1}, "already says how many layers"),
    ],
)
def test_settings_without_effect_or_sense_are_refused(bert, objective, settings, message):
    with pytest.raises(UserError, match=message):
        autoencoder(bert, objective, **settings)


def test_a_generator_of_another_vocabulary_is_refused(bert, roberta):
    with pytest.raises(UserError, match="another vocabulary"):
        autoencoder(bert, "simlm", generator=GeneratorConfig(backbone=roberta))


def test_the_enhanced_decoder_of_a_rotary_encoder_has_positions_of_its_own(bert):
    rotary = autoencoder(bert, "retromae", family="modernbert", length=24)
    assert rotary.decoder.positions.weight.shape == (24, 32)
    assert autoencoder(bert, "retromae").decoder.positions is None


def test_every_objective_has_a_test_of_its_own():

    from embedtrain.objectives.pretrain import PRETRAIN_OBJECTIVES

    folder = ROOT / "tests" / "objectives" / "pretrain"
    assert {f"test_{name}.py" for name in PRETRAIN_OBJECTIVES} == {
        path.name for path in folder.glob("test_*.py")
    }
    assert objective_of("mlm").name == "mlm"
