"""Tiny models with random weights, one of each family of transformers, and a tokenizer in its manner."""

import torch
from sentence_toys import SPECIAL, build_tokenizer
from transformers import (
    BartConfig,
    BartModel,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    EuroBertConfig,
    EuroBertModel,
    Gemma3TextConfig,
    Gemma3TextModel,
    LlamaConfig,
    LlamaModel,
    ModernBertConfig,
    ModernBertDecoderConfig,
    ModernBertDecoderModel,
    ModernBertModel,
    MT5Config,
    MT5Model,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5GemmaConfig,
    T5GemmaModel,
    T5Model,
    UMT5Config,
    UMT5Model,
    XLMRobertaConfig,
    XLMRobertaModel,
)

POSITIONS = 64
WIDTH = 32
ENCODER = {
    "vocab_size": 200, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": POSITIONS, "pad_token_id": 0,
}  # fmt: skip
DECODER = ENCODER | {"num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 2, "eos_token_id": 3}
T5 = {
    "vocab_size": 200, "d_model": WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
    "decoder_start_token_id": 0,
}  # fmt: skip
LOCAL = {"sliding_window": 9, "layer_types": ["sliding_attention", "full_attention"]}
MODULE = DECODER | LOCAL | {"query_pre_attn_scalar": 8}
DISTIL = {
    "vocab_size": 200, "dim": WIDTH, "n_layers": 2, "n_heads": 4, "hidden_dim": 64,
    "max_position_embeddings": POSITIONS,
}  # fmt: skip
MODERN = {"local_attention": 12, "global_attn_every_n_layers": 2}
FAMILIES = {
    "bert": (BertModel, BertConfig, ENCODER),
    "xlm_roberta": (
        XLMRobertaModel, XLMRobertaConfig, ENCODER | {"max_position_embeddings": POSITIONS + 1},
    ),
    "distilbert": (DistilBertModel, DistilBertConfig, DISTIL),
    "modernbert": (ModernBertModel, ModernBertConfig, ENCODER | MODERN),
    "eurobert": (EuroBertModel, EuroBertConfig, DECODER),
    "t5": (T5Model, T5Config, T5),
    "mt5": (MT5Model, MT5Config, T5),
    "umt5": (UMT5Model, UMT5Config, T5),
    "t5gemma": (
        T5GemmaModel, T5GemmaConfig, {"encoder": MODULE, "decoder": MODULE, "vocab_size": 200},
    ),
    "qwen3": (Qwen3Model, Qwen3Config, DECODER),
    "llama": (LlamaModel, LlamaConfig, DECODER),
    "embeddinggemma": (
        Gemma3TextModel, Gemma3TextConfig, DECODER | LOCAL | {"use_bidirectional_attention": True},
    ),
    "modernbert-decoder": (ModernBertDecoderModel, ModernBertDecoderConfig, ENCODER | MODERN),
    "bart": (
        BartModel, BartConfig,
        {"vocab_size": 200, "d_model": WIDTH, "encoder_layers": 1, "decoder_layers": 1},
    ),
}  # fmt: skip
"""Model, config and settings by the family's name."""
NEITHER_END = ("qwen3", "llama", "modernbert-decoder")
"""Whose tokenizers put nothing around a text."""


def save_family(name, folder):
    """Write a model of the family and its tokenizer; return the folder as text."""
    model, config, settings = FAMILIES[name]
    torch.manual_seed(0)
    built = model(config(**settings))
    for key, weight in built.named_parameters():
        if "relative_attention_bias" in key:  # so that packing without it shows
            torch.nn.init.normal_(weight, std=3)
    built.save_pretrained(folder)
    tokenizer(name).save_pretrained(folder)
    return str(folder)


def tokenizer(name):
    """Return a tokenizer that puts around a text what those of the family do."""
    if name.removeprefix("u").removeprefix("m").startswith("t5"):
        special = ["<pad>", "</s>", "[UNK]"]
        made = build_tokenizer(special=special, template="$A </s>")
        named = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "[UNK]"}
        return PreTrainedTokenizerFast(tokenizer_object=made, **named)
    template = None if name in NEITHER_END else "[CLS] $A [SEP]"
    made = build_tokenizer(special=SPECIAL, template=template)
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **named)
