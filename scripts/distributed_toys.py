"""A tiny BERT, rows to train on and text to pre-train on, for runs on several processes."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

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
    "small",
    "large",
    "house",
    "tree",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_toys(folder: Path) -> None:
    """Write a tiny BERT, rows to train on and text to pre-train on."""
    write_backbone(folder / "bert")
    write_texts(folder)


def write_backbone(folder: Path) -> None:
    """Write the BERT and its tokenizer."""
    torch.manual_seed(0)
    # Not trained: the trainer's ids change between runs.
    characters = sorted(set("".join(WORDS)))
    tokens = [*SPECIAL, *characters, *(f"##{one}" for one in characters), *WORDS]
    vocabulary = {token: place for place, token in enumerate(dict.fromkeys(tokens))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(SPECIAL)
    ends = [(name, backend.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL, strict=True))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=64,
        **{f"{key}_token": value for key, value in names.items()},
    )
    config = BertConfig(
        vocab_size=len(backend.get_vocab()), hidden_size=32, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=48, max_position_embeddings=64,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.05,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_texts(folder: Path) -> None:
    """Write pairs, the same pairs with scores, a corpus, and documents of chunks with queries."""
    generator = torch.Generator().manual_seed(1)

    def sentence(length: int) -> str:
        places = torch.randint(len(WORDS), (length,), generator=generator)
        return " ".join(WORDS[place] for place in places)

    with (folder / "pairs.jsonl").open("w", encoding="utf-8") as file:
        positives = [sentence(3 + number % 14) for number in range(12)]
        for number in range(64):  # positives repeat, so that ids mask false negatives among ranks
            row = {
                "query": sentence(2 + number % 4),
                "positive": positives[number % len(positives)],
                "negatives": [sentence(3 + number % 9)],
            }
            file.write(json.dumps(row) + "\n")
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):  # a teacher's scores; the first doubles as a class
        row["scores"] = [float(number % 3), float((7 * number) % 5 - 2)]
        row["teacher_gram"] = [number / 64]
    (folder / "scored.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(40):
            text = ". ".join(sentence(4 + place) for place in range(6))
            file.write(json.dumps({"text": text}) + "\n")
    with (folder / "documents.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(6):  # few, so that queries of one meet in a batch
            asked = [{"text": sentence(3), "chunk": chunk} for chunk in range(3)]
            row = {"chunks": [sentence(9) for _ in range(4)], "queries": asked}
            file.write(json.dumps(row) + "\n")
