"""Fine-tuning on pairs against sentence-transformers' standard way, at the same seconds of one core in float32.

    python scripts/compare_fit.py --data DATA --results runs/compare_fit.jsonl

Theirs is MultipleNegativesRankingLoss with its documented defaults: scale 20, batch 16, one epoch, no duplicates in a
batch, a tenth of warm-up; ``theirs-1e-4`` and ``theirs-2e-5`` are the same at other learning rates, ``theirs-twice`` in two
epochs. Ours takes ``--epochs`` so that it needs no more seconds; ``ours-small`` is what ``trainer: auto`` takes for few pairs,
two epochs, and ``ours-twice`` two of the usual batches at the usual rate, both in bf16. Both see the same pairs, cut at the same lengths. Sets of ``--away`` are not trained on: they show what was
forgotten. The arm ``command`` is
``embedtrain fit --pairs`` itself with ``--budget``, which keeps a part of the pairs to choose and to decide by; its seconds are
those of all its stages, and it has no seed (``--seeds 0``). ``command-corpus`` also gives it the documents that are searched.
The command reads 256 tokens of a document: compare it with ``--length 256``, in results of their own.
"""

import argparse
import resource
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from exit_codes import run_main
from rich.console import Console
from rich.table import Table
from trials import (
    LENGTHS,
    MODEL,
    Bench,
    Data,
    Ledger,
    Row,
    Scores,
    arguments_of,
    compared,
    mean_of,
    shown,
    train_rows,
    write_rows,
)

from embedtrain.evaluation.measures.statistics import compare_paired
from embedtrain.models.backbone.fetching import fetch

SETS = ("scifact", "debian-desc", "trecqa", "medquad")
AWAY = ("cranfield", "nq-mini", "se-coffee")
OURS: dict[str, Row] = {
    "ours": {},
    "ours-5e-5": {"rate": 5e-5},
    "ours-small": {"rate": 5e-5, "batch": 16, "epochs": 2.0, "precision": "bf16"},
    "ours-twice": {"epochs": 2.0, "precision": "bf16"},
    "ours-mined": {"negatives": 1},
}
COMMANDS = ("command", "command-corpus")
REFUSED = 3
"""Exit code of a fit whose result is its start."""
THEIRS: dict[str, Row] = {
    "theirs": {"rate": 5e-5},
    "theirs-1e-4": {"rate": 1e-4},
    "theirs-2e-5": {"rate": 2e-5},
    "theirs-twice": {"rate": 5e-5, "epochs": 2},
}


def train_theirs(
    rows: list[dict[str, str]], seed: int, folder: Path, rate: float, epochs: int = 1
) -> float:
    """Train sentence-transformers on pairs; return the seconds of one core."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers.losses import MultipleNegativesRankingLoss
    from sentence_transformers.training_args import SentenceTransformerTrainingArguments as Asked

    torch.manual_seed(seed)
    begin = time.process_time()
    model: Any = SentenceTransformer(str(fetch(MODEL)), device="cpu")
    model.max_seq_length = LENGTHS["document"]["length"]
    asked = Asked(
        output_dir=str(folder), num_train_epochs=epochs, per_device_train_batch_size=16,
        learning_rate=rate, warmup_ratio=0.1, seed=seed, batch_sampler="no_duplicates",
        use_cpu=True, save_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    pairs = {side: [row[side] for row in rows] for side in ("query", "positive")}
    trainer = SentenceTransformerTrainer(
        model=model,
        args=asked,
        train_dataset=Dataset.from_dict(pairs),
        loss=MultipleNegativesRankingLoss(model),
    )
    trainer.train()
    model.save_pretrained(str(folder / "model"))
    return round(time.process_time() - begin, 1)


def run_command(rows: list[dict[str, str]], budget: str, corpus: Path | None, folder: Path) -> Row:
    """Run ``embedtrain fit`` on pairs, as a user would; return the seconds of one core and how it ended."""
    pairs = write_rows(rows, folder / "pairs.jsonl")
    words = [
        "fit",
        *([corpus] if corpus else []),
        "--pairs",
        pairs,
        "--model",
        MODEL,
        "--budget",
        budget,
    ]
    words += ["--output", folder / "fit"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "embedtrain", *map(str, words)], check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, REFUSED):
        raise SystemExit(done.returncode)
    (folder / "fit" / "model").rename(folder / "model")
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(seconds, 1), "ships": done.returncode == 0}


def train_arm(
    rows: list[dict[str, str]],
    name: str,
    arm: str,
    seed: int,
    given: argparse.Namespace,
    folder: Path,
) -> Row:
    """Train one arm on the pairs of a set."""
    if arm in COMMANDS:
        corpus = given.data / "retrieval" / name if arm == "command-corpus" else None
        return run_command(rows, given.budget, corpus, folder)
    if arm in THEIRS:
        return {"seconds_of_steps": train_theirs(rows, seed, folder, **THEIRS[arm])}
    settings = {"epochs": given.epochs, "precision": "fp32", **OURS[arm]}
    return train_rows(rows, seed, settings, folder)


def report(bench: Bench, arms: list[tuple[str, int]], given: argparse.Namespace) -> None:
    """Print what each arm gains on each set over the start and over theirs, and what it forgets."""
    table = Table("Set", "Arm", "Seeds", "Seconds", "nDCG@10", "to the start", "to theirs", "Away")
    joined: dict[str, list[Scores]] = {}
    for name in given.sets:
        start = bench.score("start", name)
        theirs = bench.over_seeds(f"{name} theirs", given.seeds, name)
        table.add_row(name, "start", "", "", f"{fmean(start.values()):.4f}")
        for arm, share in arms:
            rows = bench.over_seeds(f"{name} {arm}", given.seeds, name, share)
            if not rows:
                continue
            label = arm if share == 100 else f"{arm} {share} %"
            other = shown(compared(rows, theirs)) if theirs and label != "theirs" else ""
            if other:
                both = mean_of(rows), mean_of(theirs)
                joined.setdefault(label, []).append(
                    {key: both[0][key] - both[1][key] for key in both[0]}
                )
            table.add_row(
                name, label, str(len(rows)), f"{seconds_of(bench, name, arm, given):.0f}",
                f"{fmean(mean_of(rows).values()):.4f}", shown(compared(rows, [start])), other,
                forgotten(bench, f"{name} {arm}", share, given),
            )  # fmt: skip
    console = Console(width=170)
    console.print(table)
    for label, each in joined.items():
        every = np.concatenate([list(one.values()) for one in each])
        mean = 100 * fmean(fmean(one.values()) for one in each)
        paired = shown(compare_paired(every, np.zeros_like(every)))
        console.print(
            f"{label} to theirs: {mean:+.2f}, mean of {len(each)} sets; over all queries {paired}"
        )


def seconds_of(bench: Bench, name: str, arm: str, given: argparse.Namespace) -> float:
    """Return the mean seconds of an arm's training."""
    runs = [bench.ledger.runs.get(f"train {name} {arm} {seed}") for seed in given.seeds]
    return fmean(run["seconds"] for run in runs if run is not None)


def forgotten(bench: Bench, name: str, share: int, given: argparse.Namespace) -> str:
    """Return the differences to the start, in points, on the sets that were not trained on."""
    words = []
    for away in given.away:
        rows = bench.over_seeds(name, given.seeds, away, share)
        if rows:
            paired = compared(rows, [bench.score("start", away)])
            words.append(f"{100 * paired.difference:+.1f}")
    return " ".join(words)


def main() -> None:
    """Run what is missing, then print."""
    parser = arguments_of(__doc__, "runs/compare_fit.jsonl")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--away", nargs="*", default=list(AWAY))
    parser.add_argument("--arms", nargs="+", default=["theirs", "ours"])
    parser.add_argument("--shares", type=int, nargs="*", default=[75, 50], help="percent")
    parser.add_argument("--pairs", type=int, default=512, help="training pairs of a set")
    parser.add_argument("--epochs", type=float, default=1.5, help="of ours")
    parser.add_argument("--length", type=int, default=96, help="tokens of a document; fit's is 256")
    parser.add_argument("--budget", default="5m", help="of the command")
    given = parser.parse_args()
    torch.set_num_threads(1)
    LENGTHS["document"]["length"] = given.length
    bench = Bench(Data(given.data), Ledger(given.results), given.models)
    arms = [(arm, share) for arm in given.arms for share in (100, *given.shares)]
    for target in (*given.sets, *given.away):
        bench.score("start", target)
    for seed in given.seeds:
        for name in given.sets:
            for arm in given.arms:
                rows = bench.data.pairs(name, given.pairs)
                run = f"{name} {arm} {seed}"
                work = partial(train_arm, rows, name, arm, seed, given)
                bench.train(run, work, [name, *given.away], given.shares)
    report(bench, arms, given)


if __name__ == "__main__":
    run_main(main)
