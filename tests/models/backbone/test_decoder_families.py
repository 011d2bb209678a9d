"""What is promised of decoders, on a tiny model with random weights of each family."""

import pytest
import torch
from transformers import (
    AutoTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaConfig,
    GemmaModel,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
)

from embedtrain.models.backbone.lora import LoraConfig, adapted_layers, merge_lora
from embedtrain.models.build import build_dense, load_dense, save_dense
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig

FAMILIES = {
    "llama": (LlamaConfig, LlamaModel),
    "qwen2": (Qwen2Config, Qwen2Model),
    "qwen3": (Qwen3Config, Qwen3Model),
    "mistral": (MistralConfig, MistralModel),
    "gemma": (GemmaConfig, GemmaModel),
    "gemma2": (Gemma2Config, Gemma2Model),
}
SIZES = {
    "vocab_size": 200,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
TEXTS = ["red cat runs", "red cat sleeps", "a small blue bird near the house", "dog"]
WHOLE = Execution(10_000)


@pytest.fixture(scope="module", params=FAMILIES)
def decoder(request, llama, tmp_path_factory):
    config, model = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    model(config(**SIZES)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(llama).save_pretrained(folder)
    return str(folder)


def encoder(path, **settings):
    config = DenseConfig.model_validate({"backbone": path, "similarity": "dot"} | settings)
    return build_dense(config, "cpu").eval()


@torch.no_grad()
def embed(model, execution=WHOLE):
    return model.embed(model.tokenization.encode(TEXTS, "query"), execution)


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_attention_looks_where_it_is_told_to_and_chunks_change_nothing(decoder, attention):
    model = encoder(decoder, attention=attention, pooling="cls")
    whole = embed(model)
    assert torch.equal(whole[0], whole[1]) == (attention == "causal")
    torch.testing.assert_close(embed(model, Execution(8)), whole, atol=1e-5, rtol=1e-4)
    padded = encoder(decoder, attention=attention, pooling="cls", packing="padded")
    torch.testing.assert_close(embed(padded), whole, atol=1e-5, rtol=1e-4)


def test_every_text_ends_with_eos_and_the_last_token_is_its_vector(decoder):
    model = encoder(decoder, pooling="last_token")
    ids = model.tokenization(TEXTS, "query")
    assert all(text[-1] == model.tokenizer.eos_token_id for text in ids)
    with torch.no_grad():
        model.use_padded_attention()
        state = model.backbone(torch.tensor([ids[0].tolist()])).last_hidden_state[0, -1]
    torch.testing.assert_close(embed(model)[0], state, atol=1e-5, rtol=1e-4)


def test_adapters_learn_and_an_export_holds_them(decoder, tmp_path):
    model = encoder(decoder, pooling="last_token", lora=LoraConfig(rank=2))
    for _, layer in adapted_layers(model.backbone):
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.1)
    expected = embed(model)
    model.embed(
        model.tokenization.encode(TEXTS, "query"), Execution(8, rematerialize=True)
    ).sum().backward()
    gradients = [p.grad is not None for p in model.parameters() if p.requires_grad]
    assert len(gradients) == 28
    assert all(gradients)
    merge_lora(model.backbone)
    save_dense(model, tmp_path / "model")
    found = embed(load_dense(str(tmp_path / "model")).eval())
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
