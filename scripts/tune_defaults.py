"""The experiment behind the defaults of ``trainer: auto``: settings of fine-tuning on pairs, one changed at a time.

    python scripts/tune_defaults.py --data DATA --results runs/tune_defaults.jsonl
    python scripts/tune_defaults.py --data DATA --results runs/tune_defaults.jsonl --sets scifact medquad --settings usual chosen

Runs every setting on the tuning sets, and the usual and the chosen one on sets that had no part in the choice. ``usual``
is what most people run. Training is in bf16 on a CPU.
"""

from functools import partial
from statistics import fmean

import torch
from exit_codes import run_main
from rich.console import Console
from rich.table import Table
from trials import (
    LENGTHS,
    Bench,
    Data,
    Ledger,
    Row,
    arguments_of,
    compared,
    mean_of,
    shown,
    train_rows,
)

SETS = ("debian-desc", "trecqa")
BASE: Row = {"rate": 1e-4, "both": True, "temperature": 0.05, "batch": 32, "epochs": 1.5}
SETTINGS: dict[str, Row] = {
    "usual": {"rate": 5e-5, "both": False, "batch": 16, "epochs": 1.0, "model": {"dropout": 0.1}},
    "base": {},
    "one direction": {"both": False},
    "per direction": {"partition": "per_direction"},
    "rate 5e-5": {"rate": 5e-5},
    "rate 2e-5": {"rate": 2e-5},
    "rate 2e-4": {"rate": 2e-4},
    "rate 4e-4": {"rate": 4e-4},
    "temperature 0.02": {"temperature": 0.02},
    "temperature 0.1": {"temperature": 0.1},
    "batch 16": {"batch": 16},
    "batch 64": {"batch": 64},
    "epochs 3": {"epochs": 3.0},
    "negatives 1": {"negatives": 1},
    "negatives 2": {"negatives": 2},
    "margin 0.05": {"margin": 0.05},
    "dropout": {"model": {"dropout": 0.1}},
    "small batches": {"rate": 5e-5, "batch": 16, "epochs": 2.0},
    "small batches, one pass": {"rate": 5e-5, "batch": 16, "epochs": 1.0},
    "small batches, one pass, 1e-4": {"batch": 16, "epochs": 1.0},
    "small batches, one pass, one direction": {
        "rate": 5e-5,
        "batch": 16,
        "epochs": 1.0,
        "both": False,
    },
    "one pass, 5e-5, mined": {"rate": 5e-5, "epochs": 1.0, "negatives": 1},
    "two passes": {"epochs": 2.0},
    "biases": {"model": {"train": "biases"}, "rate": 1e-3},
}


def report(
    bench: Bench, names: list[str], sets: list[str], seeds: list[int], shares: list[int]
) -> None:
    """Print what each setting gains over the start."""
    table = Table("Setting", "Blend", "Mean gain", *(f"{name}: {'to the start'}" for name in sets))
    for name in names:
        for share in (100, *shares):
            cells, gains = [], []
            for target in sets:
                rows = bench.over_seeds(f"{target} {name}", seeds, target, share)
                start = bench.score("start", target)
                cells.append(shown(compared(rows, [start])) if rows else "")
                if rows:
                    gains.append(fmean(mean_of(rows).values()) - fmean(start.values()))
            if len(gains) == len(sets):
                table.add_row(name, f"{share} %", f"{100 * fmean(gains):+.2f}", *cells)
    Console(width=150).print(table)


def main() -> None:
    """Run what is missing, then print."""
    parser = arguments_of(__doc__, "runs/tune_defaults.jsonl")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--shares", type=int, nargs="*", default=[], help="percent of blends")
    parser.add_argument("--pairs", type=int, default=512, help="training pairs of a set")
    parser.add_argument("--length", type=int, default=96, help="tokens of a document")
    given = parser.parse_args()
    LENGTHS["document"]["length"] = given.length
    torch.set_num_threads(1)
    bench = Bench(Data(given.data), Ledger(given.results), given.models)
    for target in given.sets:
        bench.score("start", target)
    for seed in given.seeds:
        for name in given.settings:
            for target in given.sets:
                run = f"{target} {name} {seed}"
                rows, settings = bench.data.pairs(target, given.pairs), BASE | SETTINGS[name]
                work = partial(train_rows, rows, seed, settings)
                bench.train(run, work, [target], given.shares)
    report(bench, given.settings, given.sets, given.seeds, given.shares)


if __name__ == "__main__":
    run_main(main)
