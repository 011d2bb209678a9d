"""What is promised of every family: it loads, packs or pads, pools, learns, is written, and read by others."""

import pytest
import torch
from backbone_toys import FAMILIES, save_family
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig, Gemma3Config, T5EncoderModel, T5Model

from embedtrain.errors import UserError
from embedtrain.models.backbone.families import look
from embedtrain.models.build import build_dense, load_dense, save_dense
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.exits import layer_stacks

TEXTS = ["red cat", "a small blue bird sleeps near the large house", "the dog runs over the tree"]
PADDED = ("t5", "mt5", "umt5")
"""Relative positions are a bias on the scores, which packed attention does not add."""
RELATIVE = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    return {name: save_family(name, root / name) for name in FAMILIES}


def encoder(path, **settings):
    config = DenseConfig.model_validate({"backbone": path, "similarity": "dot"} | settings)
    return build_dense(config, "cpu").eval()


def embed(model, texts=TEXTS, execution=Execution(10_000)):  # noqa: B008 - frozen
    return model.embed(model.tokenization.encode(texts, "document"), execution)


@pytest.mark.parametrize("name", [one for one in FAMILIES if one != "bart"])
def test_a_family_is_loaded_pooled_trained_written_and_read_by_others(name, folders, tmp_path):
    model = encoder(folders[name])
    padded = encoder(folders[name], packing="padded")
    found = embed(model)
    assert model._packs(torch.device("cpu")) == (name not in PADDED)
    torch.testing.assert_close(embed(padded), found, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(embed(model, execution=Execution(8)), found, atol=1e-5, rtol=1e-4)

    found.square().sum().backward()
    assert all(one.grad is not None for one in model.parameters() if one.requires_grad)
    with torch.no_grad():
        for one in model.parameters():
            one.sub_(1e-3 * one.grad)
        trained = embed(model)
    assert (trained - found).abs().max() > 1e-4

    save_dense(model, tmp_path / "model")
    with torch.no_grad():
        again = embed(load_dense(str(tmp_path / "model")).eval())
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    torch.testing.assert_close(again, trained, atol=1e-6, rtol=1e-5)
    read = theirs.encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(read, trained.clone(), atol=1e-5, rtol=1e-4)


def test_a_t5_is_its_encoder_whichever_class_wrote_the_folder(folders, tmp_path):
    ours = encoder(folders["t5"])
    T5EncoderModel.from_pretrained(folders["t5"]).save_pretrained(tmp_path)
    ours.tokenizer.save_pretrained(tmp_path)
    ids = ours.tokenization.encode(TEXTS[:1], "document").ids
    with torch.no_grad():
        whole = T5Model.from_pretrained(folders["t5"]).eval()
        states = whole.encoder(input_ids=ids[None]).last_hidden_state[0]
        assert torch.equal(embed(ours, TEXTS[:1])[0], states.mean(0))
        assert torch.equal(embed(encoder(str(tmp_path))), embed(ours))


@pytest.mark.parametrize("name", PADDED)
def test_to_pack_relative_positions_is_refused(name, folders):
    with pytest.raises(UserError, match=r"model\.packing packed is not exact for this backbone"):
        embed(encoder(folders[name], packing="packed"))


def test_an_encoder_decoder_without_an_encoder_of_its_own_is_refused(folders):
    with pytest.raises(UserError, match=r"got 'bart'\. Choose T5, mT5, UMT5 or T5Gemma"):
        encoder(folders["bart"])


def test_the_first_token_of_a_family_that_has_none_is_no_vector(folders):
    message = r"model\.pooling cls pools the first token, .* none there; got 'umt5'\. Use mean"
    with pytest.raises(UserError, match=message):
        encoder(folders["umt5"], pooling="cls")


@pytest.mark.parametrize("name", ["t5", "umt5", "t5gemma"])
def test_dropout_and_layers_reach_the_encoder(name, folders, tmp_path):
    still = encoder(folders[name], dropout=0).train()
    assert torch.equal(embed(still), embed(still))
    shaken = encoder(folders[name], dropout=0.5).train()
    assert not torch.equal(embed(shaken), embed(shaken))
    for settings, kept in (({"num_layers": 1}, 0), ({"kept_layers": (2,)}, 1)):
        whole, short = encoder(folders[name]), encoder(folders[name], **settings)
        (owner, place), (there, _) = (
            layer_stacks(whole.backbone)[0],
            layer_stacks(short.backbone)[0],
        )
        expected = getattr(owner, place)[kept].state_dict()
        found = getattr(there, place)[0].state_dict()
        assert all(torch.equal(found[key], value) for key, value in expected.items())
        save_dense(short, tmp_path / str(kept))
        again = load_dense(str(tmp_path / str(kept))).eval()
        assert again.num_layers == 1
        with torch.no_grad():
            torch.testing.assert_close(embed(again, TEXTS), embed(short, TEXTS))


def test_a_layer_that_becomes_the_first_takes_the_relative_positions_of_all(folders):
    whole = encoder(folders["t5"]).backbone.state_dict()
    assert RELATIVE in whole
    kept = encoder(folders["t5"], kept_layers=(2,)).backbone.state_dict()
    assert torch.equal(kept[RELATIVE], whole[RELATIVE])


def test_exits_of_a_t5_are_the_states_of_a_shorter_one(folders):
    model, short = encoder(folders["t5"], exits=(1,)), encoder(folders["t5"], num_layers=1)
    texts = model.tokenization.encode(TEXTS, "document")
    with torch.no_grad():
        both = model.embed_layers(texts, Execution(1000), (1,))
        torch.testing.assert_close(both.chunk(2, dim=1)[0], embed(short), atol=1e-6, rtol=1e-5)


def test_gemma_that_is_told_to_look_both_ways_halves_its_window_once(folders, tmp_path):
    config = AutoConfig.from_pretrained(folders["embeddinggemma"])
    assert config.sliding_window == 5
    once = look(look(config, causal=False), causal=False)
    assert once.sliding_window == 5
    causal = look(once, causal=True)
    assert (causal.sliding_window, causal.use_bidirectional_attention) == (8, False)
    model = encoder(folders["embeddinggemma"], attention="bidirectional")
    save_dense(model, tmp_path)
    again = load_dense(str(tmp_path)).backbone.config
    assert (again.sliding_window, again.use_bidirectional_attention) == (5, True)


def test_gemma_that_was_causal_looks_as_far_as_one_that_never_was(folders, tmp_path):
    """A token of the first, local layer sees two tokens on either side, and none beyond."""
    causal = encoder(folders["embeddinggemma"], attention="causal")
    save_dense(causal, tmp_path)
    told = encoder(str(tmp_path), attention="bidirectional", num_layers=1)
    ever = encoder(folders["embeddinggemma"], num_layers=1)
    with torch.no_grad():
        assert torch.equal(embed(told), embed(ever))


def test_a_model_of_images_is_refused_in_one_line(bert, tmp_path):
    save_dense(encoder(bert), tmp_path)
    Gemma3Config().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"reads more than texts, .*; got 'gemma3'\. Choose"):
        encoder(str(tmp_path))
