"""What pairs that rules make of plain documents gain, measured on queries of people about other texts.

    python scripts/compare_raw_text.py --data DATA --results runs/compare_raw_text.jsonl

Every arm trains MiniLM for the same steps on rows of ``text/debian_docs.jsonl.gz`` (`data.sources: [{pairs: ...}]`), evenly
drawn. Its rows have no titles: a document's is made of its file's name. ``shuffled`` is the control: neighbours whose
positives were dealt to other rows. Intervals are paired, over queries, of the mean over seeds.
"""

import argparse
import re
from functools import partial
from pathlib import Path
from random import Random

import torch
from exit_codes import run_main
from rich.console import Console
from rich.table import Table
from trials import (
    Bench,
    Data,
    Ledger,
    Row,
    arguments_of,
    compared,
    mean_of,
    shown,
    train_rows,
    write_rows,
)  # fmt: skip

from embedtrain.data.examples import SourceConfig
from embedtrain.data.readers.text_lines import read_objects
from embedtrain.data.sources import open_source

SETS = ("debian-desc", "manpages-desc")
TEXT = "text/debian_docs.jsonl.gz"
ARMS: dict[str, Row] = {
    "neighbours": {"pairs": "neighbours", "draws": 8},
    "headings": {"pairs": "headings", "draws": 8},
    "crops": {"pairs": "crops", "draws": 8},
    "title": {"pairs": "title"},
    "shuffled": {"pairs": "neighbours", "draws": 8},
}


def titled(path: Path, folder: Path) -> Path:
    """Write the rows with a title each: the words of their document's file name."""
    rows = [row for _, row in read_objects(path)]
    for row in rows:
        name = str(row["doc"]).rpartition("/")[2].partition(".")[0]
        row["title"] = " ".join(re.findall(r"[^\W_]+", name))
    return write_rows(rows, folder / "titled.jsonl")


def rows_of(path: Path, arm: str, number: int, seed: int) -> list[Row]:
    """Return rows of an arm, evenly drawn, in an order of the seed; ``shuffled`` deals their positives anew."""
    # A crop is of one row, of a hundred words or two: one of a whole manual would be cut behind its first lines.
    part_of = None if arm == "crops" else "doc"
    made = {key: value for key, value in ARMS[arm].items() if arm != "crops" or key != "draws"}
    config = SourceConfig.model_validate({"path": str(path), "part_of": part_of, **made})
    found = [
        {"query": row.query, "positive": row.positives[0], "not_negatives": list(row.not_negatives)}
        for row in open_source(config).examples()
    ]
    Random(seed).shuffle(found)
    rows = found[:number]
    if arm == "shuffled":
        texts = [row["positive"] for row in rows]
        rows = [
            {"query": row["query"], "positive": text}
            for row, text in zip(rows, texts[1:] + texts[:1], strict=True)
        ]
    return rows


def train_arm(arm: str, seed: int, given: argparse.Namespace, folder: Path) -> Row:
    """Make the rows of an arm, and train on them once."""
    settings = {"rate": given.rate, "batch": given.batch, "steps": given.steps}
    path = given.data / TEXT
    path = titled(path, folder) if arm == "title" else path
    rows = rows_of(path, arm, given.steps * given.batch, seed)
    return train_rows(rows, seed, settings, folder) | {"rows": len(rows)}


def report(bench: Bench, given: argparse.Namespace) -> None:
    """Print what each arm gains over the start."""
    table = Table("Arm", "Weight", *given.sets)
    for arm in given.arms:
        for share in (100, *given.shares):
            cells = []
            for name in given.sets:
                rows = bench.over_seeds(arm, given.seeds, name, share)
                paired = compared(rows, [bench.score("start", name)]) if rows else None
                cells.append("" if paired is None else f"{shown(paired)} ({len(rows)} seeds)")
            table.add_row(arm, f"{share} %", *cells)
    starts = [mean_of([bench.score("start", name)]) for name in given.sets]
    table.add_row("start", "", *(f"{sum(one.values()) / len(one):.4f}" for one in starts))
    Console(width=160).print(table)


def main() -> None:
    """Run what is missing, then print."""
    parser = arguments_of(__doc__, "runs/compare_raw_text.jsonl")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--shares", type=int, nargs="*", default=[50], help="percent of blends")
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=5e-5, help="learning rate")
    given = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(Data(given.data), Ledger(given.results), given.models)
    for seed in given.seeds:
        for arm in given.arms:
            work = partial(train_arm, arm, seed, given)
            bench.train(f"{arm} {seed}", work, given.sets, given.shares)
    report(bench, given)


if __name__ == "__main__":
    run_main(main)
