"""Does pre-training for retrieval help? MLM, RetroMAE and DupMAE, then one identical fine-tune, on real text.

    python scripts/quality_pretraining.py --output ../quality --json quality.json

An encoder of 4 layers and 256 dimensions starts from random weights, with a tokenizer trained on the same text.
Each method pre-trains it for the same steps on the same texts in the same order; `none` does not pre-train. The same
contrastive recipe then fine-tunes each on one set of pairs, and nDCG@10 is measured on several others. Scores
of a query are averaged over seeds, then compared between methods by a paired bootstrap and a sign-flip test over
queries (all sets together: every set weighs the same). ``val/decoder_loss_shuffled`` minus
``val/decoder_loss`` says whether the vector was used at all.

Every stage is kept in ``--output`` and not done again; a run that was stopped goes on where it was.
"""

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from exit_codes import run_main
from rich.console import Console
from rich.table import Table

from embedtrain.data.pretraining.corpus import CorpusConfig
from embedtrain.data.sources import load_task
from embedtrain.evaluation.measures.metrics import score_ranking
from embedtrain.evaluation.measures.statistics import (
    bootstrap_interval,
    compare_paired,
    holm_correction,
)
from embedtrain.models.build import load_dense
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.resources import resource
from embedtrain.training.validation import encode_task, rank_task
from embedtrain.workflows.tokenizer import train_tokenizer
from embedtrain.workflows.train import resume, train

SETS = ("debian-desc", "manpages-desc", "scifact", "cranfield", "nq-mini", "xquad-en")
TEXTS = ("debian_docs", "gcide", "wiki_vital_en")
METRIC = "ndcg_at_10"

Scores = dict[str, dict[str, float]]
"""nDCG@10 of each query of each set."""


def main() -> None:
    """Run every stage that is missing and print the table."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    refuse_other_settings(arguments)
    tokenizer = output / "tokenizer"
    corpora = [arguments.data / "text" / f"{name}.jsonl.gz" for name in arguments.texts]
    if not tokenizer.exists():
        configs = [CorpusConfig(path=str(path), limit=arguments.limit) for path in corpora]
        train_tokenizer(
            configs, tokenizer, kind=arguments.tokenizer, vocabulary_size=arguments.vocabulary_size
        )
    scores: dict[str, list[Scores]] = {method: [] for method in arguments.methods}
    gaps: dict[str, list[dict[str, float]]] = {method: [] for method in arguments.methods}
    for seed in range(arguments.seeds):
        for method in arguments.methods:
            place = output / f"{method}-{seed}"
            pretrained = pretrain(method, seed, place / "pretrain", corpora, arguments)
            tuned = fine_tune(pretrained / "model", seed, place / "finetune", arguments)
            scores[method].append(measure(tuned / "model", place / "scores.json", arguments))
            gaps[method].append(last_losses(pretrained))
    report(scores, gaps, arguments)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of all stages")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--methods", nargs="+", default=["none", "mlm", "retromae", "dupmae"])
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--texts", nargs="+", default=list(TEXTS))
    parser.add_argument("--limit", type=int, help="documents of each text file")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokenizer", default="bpe", choices=["bpe", "wordpiece", "unigram"])
    parser.add_argument("--vocabulary-size", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=1500, help="of pre-training")
    parser.add_argument("--batch-size", type=int, default=32, help="texts per step")
    parser.add_argument("--length", type=int, default=32, help="tokens of a text")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--dropout", type=float, default=0.0, help="none: few steps, no repeats")
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--pooling", default="cls", choices=["cls", "mean"])
    parser.add_argument("--tune-steps", type=int, default=250)
    parser.add_argument("--tune-batch-size", type=int, default=64)
    parser.add_argument("--tune-length", type=int, default=48, help="tokens of a document")
    parser.add_argument("--tune-learning-rate", type=float, default=3e-4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def refuse_other_settings(arguments: argparse.Namespace) -> None:
    """Stop if the folder holds stages of other settings: they would be mixed up."""
    free = ("output", "json", "seeds", "methods", "sets", "threads")
    settings = {k: str(v) for k, v in sorted(vars(arguments).items()) if k not in free}
    path: Path = arguments.output / "settings.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != settings:
        raise SystemExit(f"{path} holds other settings; choose another --output")
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def run_recipe(recipe: Path, overrides: Sequence[str], run: Path) -> Path:
    """Train a recipe, or go on with it, or do nothing if it is done."""
    if (run / "model").exists():
        return run
    if (run / "recipe.yaml").is_file():
        resume(run)
    else:
        train(load_recipe(recipe, overrides), run)
    return run


def pretrain(
    method: str, seed: int, run: Path, corpora: Sequence[Path], arguments: argparse.Namespace
) -> Path:
    """Pre-train by one method; `none` does one step of MLM at no speed at all."""
    sources = [{"path": str(path), "limit": arguments.limit} for path in corpora]
    name = "mlm" if method == "none" else method
    rate = 1e-12 if method == "none" else arguments.learning_rate
    overrides = {
        "data.sources": sources,
        "data.length": arguments.length,
        "model.backbone": str(arguments.output / "tokenizer"),
        "model.architecture": {
            "family": "bert",
            "num_layers": 4,
            "width": 256,
            "num_heads": 4,
            "dropout": arguments.dropout,
        },
        "model.pooling": arguments.pooling,
        "trainer": {
            "steps": 1 if method == "none" else arguments.steps,
            "batch_size": arguments.batch_size,
            "learning_rate": rate,
            "checkpoint_every": 200,
            "log_every": 50,
            "seed": seed,
            "precision": arguments.precision,
        },
        "validation": {"num_texts": 128, "every_steps": 500},
    }
    recipe = resource("recipes") / "pretrain" / f"{name}.yaml"
    return run_recipe(recipe, as_words(overrides), run)


def fine_tune(model: Path, seed: int, run: Path, arguments: argparse.Namespace) -> Path:
    """Fine-tune on pairs of package names and descriptions; the same for every method."""
    pairs = arguments.data / "pairs" / "debian_packages.train.jsonl.gz"
    overrides = {
        "data.sources": [{"path": str(pairs)}],
        "model.backbone": str(model),
        "model.query.length": 32,
        "model.document.length": arguments.tune_length,
        "objective.temperature": 0.05,
        "trainer": {
            "steps": arguments.tune_steps,
            "batch_size": arguments.tune_batch_size,
            "learning_rate": arguments.tune_learning_rate,
            "seed": seed,
            "precision": arguments.precision,
        },
    }
    recipe = resource("recipes") / "dense" / "info_nce.yaml"
    return run_recipe(recipe, as_words(overrides), run)


def as_words(overrides: dict[str, object]) -> list[str]:
    """Return overrides as the command line takes them; JSON is YAML."""
    return [f"{key}={json.dumps(value)}" for key, value in overrides.items()]


def measure(model: Path, path: Path, arguments: argparse.Namespace) -> Scores:
    """Return nDCG@10 of each query, from ``path`` where it stands already."""
    scores: Scores = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    encoder = None
    for name in arguments.sets:
        if name in scores:
            continue
        encoder = encoder or load_dense(str(model))
        task = load_task(str(arguments.data / "retrieval" / name))
        # Cranfield holds an abstract without text; it must stay a candidate.
        task = replace(task, documents=[text.strip() or "." for text in task.documents])
        ranking = rank_task(task, encode_task(encoder, task))
        scores[name] = score_ranking(ranking, [METRIC])[METRIC]
        path.write_text(json.dumps(scores), encoding="utf-8")
    return scores


def last_losses(run: Path) -> dict[str, float]:
    """Return the last held-out losses of a pre-training run."""
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/loss")]
    wanted = ("encoder_loss", "decoder_loss", "decoder_loss_shuffled")
    last = {name: rows[-1].get(f"val/{name}") for name in wanted} if rows else {}
    return {name: float(value) for name, value in last.items() if value}


def report(
    scores: dict[str, list[Scores]],
    gaps: dict[str, list[dict[str, float]]],
    arguments: argparse.Namespace,
) -> None:
    """Print the tables and write them as JSON."""
    means = {
        method: {
            name: np.array(
                [np.mean([seed[name][query] for seed in seeds]) for query in sorted(seeds[0][name])]
            )
            for name in arguments.sets
        }
        for method, seeds in scores.items()
    }
    table = Table("nDCG@10", *arguments.sets, "mean", "spread of seeds")
    result: dict[str, object] = {"methods": {}, "comparisons": {}, "losses": gaps}
    for method, sets in means.items():
        intervals = {name: bootstrap_interval(values) for name, values in sets.items()}
        by_seed = [
            np.mean([np.mean(list(seed[name].values())) for name in arguments.sets])
            for seed in scores[method]
        ]
        cells = [f"{i.value:.4f} [{i.low:.4f}, {i.high:.4f}]" for i in intervals.values()]
        table.add_row(method, *cells, f"{np.mean(by_seed):.4f}", f"{np.std(by_seed):.4f}")
        result["methods"][method] = {  # type: ignore[index]
            "mean": float(np.mean(by_seed)),
            "seeds": [float(value) for value in by_seed],
            "sets": {name: interval.value for name, interval in intervals.items()},
        }
    Console(width=200).print(table)
    result["comparisons"] = compare_all(means, arguments)
    losses = Table("Held out, last", "encoder", "decoder", "decoder, other vectors")
    for method, rows in gaps.items():
        names = ("encoder_loss", "decoder_loss", "decoder_loss_shuffled")
        cells = [[row[name] for row in rows if name in row] for name in names]
        losses.add_row(method, *(f"{np.mean(cell):.4f}" if cell else "" for cell in cells))
    Console(width=200).print(losses)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def compare_all(
    means: dict[str, dict[str, np.ndarray]], arguments: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Compare each method with the one before it, set by set and over all sets."""
    tests: list[tuple[str, str, np.ndarray, np.ndarray]] = []
    methods = list(means)
    for baseline, method in pairwise(methods):
        title = f"{method} - {baseline}"
        pairs = [(name, means[method][name], means[baseline][name]) for name in arguments.sets]
        tests += [(title, *pair) for pair in pairs]
        # Every set weighs the same, however many queries it has.
        total = sum(len(values) for _, values, _ in pairs)
        weights = {name: total / len(pairs) / len(values) for name, values, _ in pairs}
        whole = [np.concatenate([pair[i] * weights[pair[0]] for pair in pairs]) for i in (1, 2)]
        tests.append((title, "all sets", *whole))
    compared = [compare_paired(values, baseline) for _, _, values, baseline in tests]
    corrected = holm_correction([comparison.p_value for comparison in compared])
    table = Table("Difference", "Set", "nDCG@10", "95 % interval", "p", "p (Holm)")
    result = {}
    for (title, name, *_), found, p_value in zip(tests, compared, corrected, strict=True):
        table.add_row(
            title,
            name,
            f"{found.difference:+.4f}",
            f"[{found.low:+.4f}, {found.high:+.4f}]",
            f"{found.p_value:.4f}",
            f"{p_value:.4f}",
        )
        result[f"{title}, {name}"] = {
            "difference": found.difference,
            "low": found.low,
            "high": found.high,
            "p_value": found.p_value,
            "p_value_holm": p_value,
        }
    Console(width=200).print(table)
    return result


if __name__ == "__main__":
    run_main(main)
