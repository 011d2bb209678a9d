"""The three backbones that most tests read: a BERT, a RoBERTa and a Llama of two layers, with tokenizers of few words."""

from pathlib import Path

import torch
from sentence_toys import SPECIAL, build_tokenizer


def save_bert(folder: Path, *, dropout: float = 0.0, layers: int = 2) -> Path:
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=200,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(special=SPECIAL, template="[CLS] $A [SEP]"),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )
    tokenizer.save_pretrained(folder)
    return folder


def save_roberta(folder: Path) -> Path:
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

    torch.manual_seed(0)
    special = ["<s>", "<pad>", "</s>", "[UNK]"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(special=special, template="<s> $A </s>"),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="[UNK]",
    )
    tokenizer.save_pretrained(folder)
    config = RobertaConfig(
        vocab_size=200,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=66,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=1,
    )
    RobertaModel(config).save_pretrained(folder)
    return folder


def save_llama(folder: Path) -> Path:
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    special = ["<s>", "</s>", "[UNK]"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(special=special, template=None),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="[UNK]",
    )
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=200,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    LlamaModel(config).save_pretrained(folder)
    return folder
