"""A sparse model fine-tuned on pairs against the same model untrained: quality, entries, and whether a target holds.

    python scripts/compare_sparse.py --data DATA --output runs/sparse --json sparse.json

Trains a published SPLADE on pairs with a softmax and FLOPS whose prices follow a target, the numbers of entries that the
model had before, once for each seed, and searches descriptions of packages with each: all that answer a query, and the
first others up to ``--documents``. Differences are tested pair by pair. What lies in the output folder is not done again.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from exit_codes import run_main
from rich.console import Console
from rich.table import Table
from trained_runs import train_once

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.sources import load_task
from embedtrain.evaluation.measures.metrics import score_ranking
from embedtrain.evaluation.measures.statistics import bootstrap_interval, compare_paired
from embedtrain.models.build import build_encoder
from embedtrain.models.sparse.config import SparseConfig
from embedtrain.recipe.retrieval import Recipe
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.training.validation import encode_task, rank_task

LENGTHS = {"query": {"length": 64}, "document": {"length": 64}}


def recipe_of(seed: int, target: dict[str, float], arguments: argparse.Namespace) -> Recipe:
    """Return the recipe of a run; only the seed differs between runs."""
    pairs = arguments.data / "pairs" / "debian_packages.train.jsonl.gz"
    prices = {
        side: {"weight": weight, "target": round(target[side])}
        for side, weight in (("query", 3e-3), ("document", 1e-3))
    }
    return Recipe.model_validate(
        {
            "description": "Comparison of a sparse model before and after training.",
            "data": {"sources": [{"path": str(pairs)}]},
            "model": {"kind": "sparse", "backbone": arguments.backbone, "dropout": 0.0, **LENGTHS},
            "objective": {
                "name": "sparsity",
                "inner": {"name": "info_nce", "temperature": 1.0},
                **prices,
            },
            "trainer": {
                "steps": arguments.steps,
                "batch_size": arguments.batch_size,
                "learning_rate": 2.0e-4,
                "seed": seed,
                "precision": "fp32",
                "checkpoint_every": 50,
            },
        }
    )


def reduced(task: RetrievalTask, number: int) -> RetrievalTask:
    """Keep the documents that answer a query, and the first others."""
    answers = {key for found in task.qrels.values() for key in found}
    spare = max(0, number - len(answers))
    others = [key for key in task.document_ids if key not in answers][:spare]
    kept = answers | set(others)
    rows = [row for row, key in enumerate(task.document_ids) if key in kept]
    return RetrievalTask(
        **vars(task)
        | {
            "document_ids": [task.document_ids[row] for row in rows],
            "documents": [task.documents[row] for row in rows],
        }
    )


def measure(model: str, place: Path, task: RetrievalTask) -> dict[str, Any]:
    """Return nDCG@10 of each query in the order of their ids, and entries per text, unless they are there."""
    if not place.is_file():
        config = SparseConfig.model_validate({"kind": "sparse", "backbone": model, **LENGTHS})
        encoded = encode_task(build_encoder(config).eval(), task)
        scores = score_ranking(rank_task(task, encoded), ["ndcg_at_10"])["ndcg_at_10"]
        assert isinstance(encoded.queries, SparseVectors)
        assert isinstance(encoded.documents, SparseVectors)
        found = {
            "scores": [scores[key] for key in sorted(scores)],
            "query": float(encoded.queries.lengths.mean()),
            "document": float(encoded.documents.lengths.mean()),
        }
        place.write_text(json.dumps(found) + "\n", encoding="utf-8")
    read: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    return read


def add_row(
    table: Table, name: str, found: dict[str, Any], before: dict[str, Any]
) -> dict[str, float]:
    """Add one model to the table and return its figures."""
    scores, baseline = np.array(found["scores"]), np.array(before["scores"])
    mean = bootstrap_interval(scores)
    paired = compare_paired(scores, baseline)
    trained = found is not before
    table.add_row(
        name,
        f"{mean.value:.4f} [{mean.low:.4f}, {mean.high:.4f}]",
        f"{paired.difference:+.4f} [{paired.low:+.4f}, {paired.high:+.4f}]" if trained else "",
        f"{paired.p_value:.4f}" if trained else "",
        *(f"{found[side]:.1f}" for side in LENGTHS),
    )
    figures = {f"{name}_ndcg_at_10": mean.value, f"{name}_difference": paired.difference}
    figures |= {f"{name}_p_value": paired.p_value}
    return figures | {f"{name}_{side}_entries": found[side] for side in LENGTHS}


def main() -> None:
    """Run what is missing, then print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, default=Path("runs/sparse"))
    parser.add_argument("--json", type=Path, help="file of flat figures")
    parser.add_argument("--backbone", default="package:cognition/model")
    parser.add_argument("--documents", type=int, default=3000, help="size of the corpus")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    path = arguments.data / "retrieval" / "debian-desc"
    task = reduced(load_task(str(path), "test"), arguments.documents)
    before = measure(arguments.backbone, output / "untrained.json", task)
    table = Table(
        "Model", "nDCG@10 [95 %]", "Difference [95 %]", "p", "of a query", "of a document"
    )
    figures = add_row(table, "untrained", before, before)
    for seed in range(arguments.seeds):
        name = f"seed_{seed}"
        model = train_once(recipe_of(seed, before, arguments), output / name)
        found = measure(str(model), output / f"{name}.json", task)
        figures |= add_row(table, name, found, before)
        Console(width=140).print(table)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
