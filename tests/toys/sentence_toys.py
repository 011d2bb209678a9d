"""Sentences of a few words, and a tokenizer that knows them."""

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = [
    "red",
    "green",
    "blue",
    "cat",
    "dog",
    "bird",
    "runs",
    "jumps",
    "sleeps",
    "over",
    "under",
    "near",
    "the",
    "a",
    "small",
    "large",
    "house",
    "tree",
]


def sentence(generator: torch.Generator, length: int) -> str:
    places = torch.randint(len(WORDS), (length,), generator=generator)
    return " ".join(WORDS[place] for place in places)


def build_tokenizer(*, special: list[str], template: str | None) -> Tokenizer:
    """Know some words whole and spell all others; not trained, for its trainer's ids change between runs."""
    words = [*WORDS, "query", "passage"]
    characters = sorted(set("".join([*words, ":xyz"])))
    pieces = [*(word[:end] for word in words for end in range(2, len(word) + 1))]
    pieces += [f"##{word[start:]}" for word in words for start in range(1, len(word) - 1)]
    tokens = [*special, *characters, *(f"##{one}" for one in characters), *pieces]
    vocabulary = {token: place for place, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(special)
    if template:
        named = [name for name in special if name in template]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(name, tokenizer.token_to_id(name)) for name in named]
        )
    return tokenizer


SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
