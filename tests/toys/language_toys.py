"""A tiny language model with random weights that spells, and knows four words whole."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

MERGES = ["Y e", "Ye s", "Ġ Yes", "N o", "Ġ No", "Ġ t", "Ġt h", "Ġth e"]
CHAT = (
    "{% for message in messages %}<turn>{{ message['content'] }}</turn>{% endfor %}"
    "{% if add_generation_prompt %}<turn>{% endif %}"
)


def spelling_tokenizer():
    """A byte-level tokenizer of single bytes and a few words; ids never change."""
    from transformers import PreTrainedTokenizerFast

    special = ["<turn>", "</turn>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [merge.replace(" ", "") for merge in MERGES]
    vocabulary = {name: place for place, name in enumerate([*special, *letters, *words])}
    made = Tokenizer(models.BPE(vocabulary, [tuple(merge.split()) for merge in MERGES]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</turn>", chat_template=CHAT)


def save_language_model(folder, *, chat=True, **changes):
    """Save a Llama of two layers with wide random weights, so that its tokens depend on what came before."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(5)
    tokenizer = spelling_tokenizer()
    if not chat:
        tokenizer.chat_template = None
    sizes = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64,
        "max_position_embeddings": 2048, "initializer_range": 0.2, "bos_token_id": None,
        "eos_token_id": 1, "pad_token_id": None,
    }  # fmt: skip
    LlamaForCausalLM(LlamaConfig(**sizes | changes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def whole(model, ids):
    """The logits of transformers itself, of one text alone."""
    with torch.no_grad():
        return model.model(torch.tensor([ids]), use_cache=False).logits[0]
