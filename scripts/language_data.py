"""What ``compare_languages.py`` trains on: bitext, neighbouring sentences, and a student with a vocabulary of its own."""

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from embedtrain.data.pretraining.corpus import CorpusConfig
from embedtrain.data.readers.text_lines import read_objects
from embedtrain.models.backbone.fetching import fetch
from embedtrain.workflows.tokenizer import train_tokenizer

LANGUAGES = {"de": "deu", "fr": "fra", "zh": "cmn"}
SENTENCE = "sentence1", "sentence2"


def sentences(data: Path, language: str, split: str) -> list[str]:
    """Return the sentences of STS-B in one language, in the order of the English ones."""
    rows = [row for _, row in read_objects(data / "sts" / f"stsb-{language}.{split}.jsonl")]
    return [str(row[column]) for row in rows for column in SENTENCE]


def write_rows(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    """Write rows once."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def bitext(arguments: argparse.Namespace, language: str, split: str = "train") -> Path:
    """Write English sentences, each once, with their translations; none of the test's is among those to train on."""
    path: Path = arguments.output / f"en-{language}.{split}.jsonl"
    if path.is_file():
        return path
    english, other = (sentences(arguments.data, one, split) for one in ("en", language))
    pairs = dict(zip(english, other, strict=True))
    if split != "test":
        held_out = set(sentences(arguments.data, "en", "test"))
        pairs = {one: two for one, two in pairs.items() if one not in held_out}
    rows = [dict(zip(SENTENCE, pair, strict=True)) for pair in pairs.items()]
    return write_rows(path, rows)


def make_student(arguments: argparse.Namespace) -> Path:
    """Make a folder of the teacher's layers and a new vocabulary, whose words start as the mean of the teacher's pieces."""
    folder: Path = arguments.output / "student"
    if (folder / "config.json").is_file():
        return folder
    corpora = [
        CorpusConfig(path=str(bitext(arguments, language)), column=column)
        for language in LANGUAGES
        for column in SENTENCE
    ]
    vocabulary = arguments.output / "vocabulary"
    if not vocabulary.is_dir():
        train_tokenizer(corpora, vocabulary, kind="wordpiece", vocabulary_size=arguments.vocabulary)
    tokenizer, place = AutoTokenizer.from_pretrained(vocabulary), fetch(arguments.teacher)
    teacher, pieces = AutoModel.from_pretrained(place), AutoTokenizer.from_pretrained(place)
    settings = teacher.config.to_dict() | {"vocab_size": len(tokenizer)}
    model = BertModel(BertConfig.from_dict(settings), add_pooling_layer=False)
    known, places = teacher.get_input_embeddings().weight, pieces.get_vocab()
    kept = {
        n: w for n, w in teacher.state_dict().items() if "word_emb" not in n and "pooler" not in n
    }
    model.load_state_dict(kept, strict=False)
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        for token, row in tokenizer.get_vocab().items():
            found = places.get(token)
            ids = pieces(token.removeprefix("##"), add_special_tokens=False)["input_ids"]
            table[row] = known[found] if found is not None else known[ids].mean(0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def neighbours(arguments: argparse.Namespace, language: str) -> Path:
    """Write neighbouring sentences of Wikipedia's articles, cut at full stops."""
    path: Path = arguments.output / f"neighbours.{language}.jsonl"
    if path.is_file():
        return path
    articles = read_objects(arguments.data / "text" / f"wiki_vital_{language}.jsonl.gz")
    rows = [
        {"query": one, "positive": other}
        for _, article in articles
        for one, other in _neighbours(str(article["text"]))
    ]
    return write_rows(path, rows)


def _neighbours(text: str) -> Iterator[tuple[str, str]]:
    parts = [part.strip() for part in text.split(". ") if len(part.split()) >= 5]
    yield from pairwise(parts)
