"""Packed equals padded, forward and backward, for every family: on the CPU's path and on a GPU's, played by a stand-in."""

import logging

import pytest
import torch
import varlen_stand_ins
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    Gemma2Config,
    Gemma2Model,
    Gemma3TextConfig,
    Gemma3TextModel,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from embedtrain.models.backbone.attention.rules import WHOLE
from embedtrain.models.backbone.lora import LoraConfig, adapted_layers
from embedtrain.models.build import build_dense
from embedtrain.models.dense.config import DenseConfig
from embedtrain.packed import Texts

POSITIONS = 128
ENCODER = {
    "vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": POSITIONS,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
DECODER = {
    "vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 64,
    "max_position_embeddings": POSITIONS, "pad_token_id": 0,
}  # fmt: skip
LONGER = {"max_position_embeddings": POSITIONS + 2, "pad_token_id": 1}
MODERN = {key: value for key, value in ENCODER.items() if "dropout" not in key}
MODERN |= {"pad_token_id": 0, "local_attention": 12, "global_attn_every_n_layers": 2}
DISTIL = {
    "vocab_size": 200, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64,
    "max_position_embeddings": POSITIONS, "dropout": 0.0, "attention_dropout": 0.0,
}  # fmt: skip
LOCAL = {"sliding_window": 9, "layer_types": ["sliding_attention", "full_attention"]}
FAMILIES = {
    "bert": (BertModel, BertConfig, ENCODER, {}),
    "roberta": (RobertaModel, RobertaConfig, ENCODER | LONGER, {}),
    "xlm_roberta": (XLMRobertaModel, XLMRobertaConfig, ENCODER | LONGER, {}),
    "distilbert": (DistilBertModel, DistilBertConfig, DISTIL, {}),
    "modernbert": (ModernBertModel, ModernBertConfig, MODERN, {}),
    "qwen3": (Qwen3Model, Qwen3Config, DECODER, {}),
    "qwen3 looking both ways": (Qwen3Model, Qwen3Config, DECODER, {"attention": "bidirectional"}),
    "qwen3 with windows": (
        Qwen3Model, Qwen3Config, DECODER | LOCAL | {"use_sliding_window": True}, {},
    ),
    "llama": (LlamaModel, LlamaConfig, DECODER, {}),
    "llama looking both ways": (LlamaModel, LlamaConfig, DECODER, {"attention": "bidirectional"}),
    "mistral": (MistralModel, MistralConfig, DECODER | {"sliding_window": 9}, {}),
    "mistral looking both ways": (
        MistralModel, MistralConfig, DECODER | {"sliding_window": 9}, {"attention": "bidirectional"},
    ),
    "gemma3": (Gemma3TextModel, Gemma3TextConfig, DECODER | LOCAL, {}),
    "embeddinggemma": (
        Gemma3TextModel, Gemma3TextConfig, DECODER | LOCAL | {"use_bidirectional_attention": True}, {},
    ),
    "embeddinggemma, told again": (
        Gemma3TextModel, Gemma3TextConfig, DECODER | LOCAL | {"use_bidirectional_attention": True},
        {"attention": "bidirectional"},
    ),
    "gemma2": (
        Gemma2Model, Gemma2Config, DECODER | LOCAL | {"attn_logit_softcapping": 0.5}, {},
    ),
}  # fmt: skip
LAYERS_WITH_WINDOW = {"modernbert": 1, "mistral": 2, "gemma3": 1, "embeddinggemma": 1, "gemma2": 1}
SIZES = [100, 61, 61, 20, 4, 1]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, bert, roberta, tmp_path_factory):
    model, config, settings, wishes = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp("family")
    save(folder, model, config, settings, bert, roberta)
    return request.param, str(folder), wishes


def save(folder, model, config, settings, bert, roberta):
    torch.manual_seed(0)
    built = model(config(**settings))
    for weight in built.parameters():
        if weight.ndim == 2:
            weight.data.mul_(2)  # so that a token seen too much or too little shows
    built.save_pretrained(folder)
    tokenizer = roberta if settings.get("pad_token_id") == 1 else bert
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)


def encoder(path, **wishes):
    length = {"length": 100}
    return build_dense(
        DenseConfig(backbone=path, query=length, document=length, similarity="dot", **wishes), "cpu"
    ).eval()


def texts():
    generator = torch.Generator().manual_seed(3)
    return Texts(torch.randint(5, 200, (sum(SIZES),), generator=generator), torch.tensor(SIZES))


def states_and_gradients(model, *, packed):
    model.zero_grad()
    states = model.states(texts(), packed=packed)
    generator = torch.Generator().manual_seed(4)
    states.mul(torch.randn(states.shape, generator=generator)).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return states.detach(), gradients


def assert_same(found, expected):
    (states, gradients), (known, wanted) = found, expected
    assert (states - known).norm() <= 1e-6 * known.norm()
    assert gradients.keys() == wanted.keys()
    whole = torch.stack([one.norm() for one in wanted.values()]).norm()
    for name, one in gradients.items():
        assert (one - wanted[name]).norm() <= 1e-6 * whole, name


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)], ids=["whole", "lora"])
def test_packed_gives_the_states_and_gradients_of_padded(family, lora):
    name, path, wishes = family
    model = encoder(path, lora=lora, **wishes)
    for _, layer in adapted_layers(model.backbone) if lora else ():
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.02)
    expected = states_and_gradients(model, packed=False)
    assert expected[1]
    assert_same(states_and_gradients(model, packed=True), expected)
    if "gemma2" in name:
        return  # flash attention has no cap on scores, and the table does not choose it
    with varlen_stand_ins.forced("flash_attn_2") as asked:
        assert_same(states_and_gradients(model, packed=True), expected)
    assert len(asked) == 2


def test_the_check_finds_packing_exact_beyond_every_window(family):
    _, path, wishes = family
    assert encoder(path, **wishes)._packs(torch.device("cpu"))


@pytest.mark.parametrize("name", LAYERS_WITH_WINDOW)
def test_a_window_that_were_forgotten_would_be_found(name, bert, roberta, tmp_path, monkeypatch):
    model, config, settings, wishes = FAMILIES[name]
    save(tmp_path, model, config, settings, bert, roberta)
    monkeypatch.setattr(
        "embedtrain.models.backbone.packed_attention.layer_window", lambda *args, **more: WHOLE
    )
    assert not encoder(str(tmp_path), **wishes)._packs(torch.device("cpu"))


@pytest.mark.parametrize("change", [-1, 1])
@pytest.mark.parametrize("name", LAYERS_WITH_WINDOW)
def test_a_window_that_is_off_by_one_would_be_found(
    name, change, bert, roberta, tmp_path, monkeypatch
):
    model, config, settings, wishes = FAMILIES[name]
    save(tmp_path, model, config, settings, bert, roberta)
    place = "embedtrain.models.backbone.packed_attention.layer_window"
    from embedtrain.models.backbone.packed_attention import layer_window

    def moved(window, **more):
        return layer_window(window and window + change, **more | {"mask_window": None})

    monkeypatch.setattr(place, moved)
    assert not encoder(str(tmp_path), **wishes)._packs(torch.device("cpu"))


def test_a_family_with_a_bias_of_its_own_is_padded_and_says_so(roberta, tmp_path, caplog):
    """MPNet adds relative positions to its scores, inside a layer that takes no attention from outside."""
    save(tmp_path, MPNetModel, MPNetConfig, ENCODER | LONGER, roberta, roberta)
    with caplog.at_level(logging.INFO):
        assert not encoder(str(tmp_path))._packs(torch.device("cpu"))
    assert "the family mpnet takes no attention from outside" in caplog.text
    assert "packing: padded" in caplog.text
