"""What training without labels gains: queries by rules, one recipe for all sets, measured on queries of people.

    python scripts/compare_synthesis.py --data DATA --results runs/compare_synthesis.jsonl

Every arm writes queries for the corpus of a test and trains for the same steps; the test's own queries are never seen.
``structure`` takes titles where there are any, and first sentences elsewhere. ``mined`` adds hard negatives, ``teacher``
learns the order in which BM25 and the start together put ten documents, ``biases`` trains no weights but biases,
``pretrained`` goes on from RetroMAE on the corpus. ``written`` reads the rows that `embedtrain synth` wrote with a
language model, from ``--written`` FOLDER/SET/train.jsonl, and ``people`` what people asked, from people.jsonl there (see
held_writer.py). Blends are weighted means of an arm and the start.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from statistics import fmean

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
    arguments_of,
    compared,
    encoder_of,
    mean_of,
    shown,
    train_rows,
)

from embedtrain.data.documents.document import Chunk, Document
from embedtrain.data.readers.text_lines import read_objects
from embedtrain.encoding.texts import encode_texts
from embedtrain.evaluation.measures.statistics import holm_correction
from embedtrain.mining.bm25 import Bm25Index, Bm25Search
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.synthesis.makers import Rules
from embedtrain.synthesis.settings import SynthesisConfig
from embedtrain.workflows.train import train

SETS = ("cranfield", "scifact", "debian-desc", "manpages-desc", "medquad")
LIST = 10
"""Documents that a teacher puts in order."""
DISTILLED: Row = {
    "name": "kl_distillation", "candidates": "batch", "teacher_temperature": 0.1, "temperature": 0.05,
}  # fmt: skip
ARMS: dict[str, Row] = {
    "structure": {"makers": ("title", "first")},
    "title": {"makers": ("title",)},
    "first": {"makers": ("first",)},
    "crop": {"makers": ("crop",)},
    "keyphrases": {"makers": ("keyphrases",)},
    "all rules": {"makers": ("title", "first", "crop", "keyphrases"), "all": True},
    "structure 1e-4": {"makers": ("title", "first"), "rate": 1e-4},
    "structure 1e-4 twice": {"makers": ("title", "first"), "rate": 1e-4, "steps": 48},
    "structure mined": {"makers": ("title", "first"), "negatives": 2},
    "structure teacher": {"makers": ("title", "first"), "teacher": True},
    "crop teacher": {"makers": ("crop",), "teacher": True},
    "structure biases": {"makers": ("title", "first"), "model": {"train": "biases"}, "rate": 1e-3},
    "structure pretrained": {"makers": ("title", "first"), "pretrained": True},
    "written": {"file": "train.jsonl"},
    "people": {"file": "people.jsonl"},
}
OWN = ("makers", "file", "all", "teacher", "pretrained")
"""Keys of an arm that are no settings of training."""


def documents_of(data: Data, name: str, more: int) -> list[Document]:
    """Return the corpus of a test, with titles apart, and so many others of the whole set."""
    kept = set(data.task(name).document_ids)
    path = data.folder / "retrieval" / name / "corpus.jsonl"
    found, spare = [], more
    for _, row in read_objects(path):
        inside = row["_id"] in kept
        if inside or spare > 0:
            spare -= not inside
            found.append(Document(row["_id"], row.get("title", ""), row["text"]))
    return found


def rows_of(documents: list[Document], arm: Row, number: int) -> list[Row]:
    """Write queries by the rules of an arm; without ``all`` one a document, by the first rule that has one."""
    config = SynthesisConfig.model_validate(
        {"makers": arm["makers"], "shares": {"first": 1, "crop": 1, "keyphrases": 1}}
    )
    chunks = [Chunk(one.id, one.id, one.title, "", one.text, 0, len(one.text)) for one in documents]
    found: list[Row] = []
    done: set[str] = set()
    for made in Rules.of(config, documents, chunks).write(chunks):
        if made.document not in done or arm.get("all"):
            found.append({"query": made.query, "positive": made.positive})
        done.add(made.document)
    kept = min(number, len(found))
    return [found[place * len(found) // kept] for place in range(kept)]


def taught(rows: list[Row], seed: int) -> list[Row]:
    """Add documents that BM25 and the start find, and the sum of their scores, each between 0 and 1."""
    texts = list(dict.fromkeys(row["positive"] for row in rows))
    queries = [row["query"] for row in rows]
    model, place = encoder_of(MODEL), {text: row for row, text in enumerate(texts)}
    sides = (queries, "query"), (texts, "document")
    vectors = [np.asarray(encode_texts(model, own, side, precision="bf16")) for own, side in sides]
    cosines = vectors[0] @ vectors[1].T
    lexical = np.stack(list(Bm25Index(Bm25Search(), texts).scores(queries)))
    fused = scaled(cosines) + scaled(lexical)
    random = np.random.Generator(np.random.PCG64(seed))
    found = []
    for row, scores in zip(rows, fused, strict=True):
        own = place[row["positive"]]
        first = [int(one) for one in np.argsort(-scores)[: 3 * LIST] if one != own]
        others = [*first[: LIST // 2], *random.choice(first[LIST // 2 :], LIST // 2, replace=False)]
        chosen = [own, *(int(one) for one in others)]
        negatives = [texts[one] for one in chosen[1:]]
        found.append(
            row | {"negatives": negatives, "scores": [float(scores[one]) for one in chosen]}
        )
    return found


def scaled(scores: np.ndarray) -> np.ndarray:
    """Return scores between 0 and 1 in each row."""
    low, high = scores.min(axis=1, keepdims=True), scores.max(axis=1, keepdims=True)
    scored: np.ndarray = (scores - low) / np.maximum(high - low, 1e-9)
    return scored


def pretrain(documents: list[Document], seed: int, steps: int, folder: Path) -> Path:
    """Go on with RetroMAE on the corpus; return the encoder."""
    path = folder / "corpus.jsonl"
    lines = [json.dumps({"text": f"{one.title} {one.text}".strip()}) for one in documents]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    overrides = {
        "data.sources": [{"path": str(path)}], "data.length": LENGTHS["document"]["length"],
        "model.backbone": MODEL, "model.pooling": "mean", "trainer.steps": steps,
        "trainer.epochs": None, "trainer.batch_size": 32, "trainer.learning_rate": 2e-5, "trainer.seed": seed,
        "trainer.precision": "bf16", "validation": None,
    }  # fmt: skip
    return train(load_recipe("pretrain/retromae", overrides), folder / "pretrained").model


def has_queries(data: Data, name: str, arm: str) -> bool:
    """Whether the rules of an arm write anything for a set: some have no titles."""
    return "file" in ARMS[arm] or bool(rows_of(documents_of(data, name, 0), ARMS[arm], 1))


def train_arm(
    name: str, arm: str, seed: int, data: Data, given: argparse.Namespace, folder: Path
) -> Row:
    """Write queries for the corpus of a set, and train on them."""
    documents = documents_of(data, name, given.more)
    settings = {"rate": given.rate, "batch": given.batch, "steps": given.steps}
    settings |= {key: value for key, value in ARMS[arm].items() if key not in OWN}
    number = settings["steps"] * settings["batch"]
    if "file" in ARMS[arm]:
        rows = [row for _, row in read_objects(given.written / name / ARMS[arm]["file"])][:number]
    else:
        rows = rows_of(documents, ARMS[arm], number)
    if ARMS[arm].get("teacher"):
        rows, settings["objective"] = taught(rows, seed), DISTILLED
    if ARMS[arm].get("pretrained"):
        settings["start"] = str(pretrain(documents, seed, given.steps, folder))
    return train_rows(rows, seed, settings, folder) | {"rows": len(rows)}


def report(bench: Bench, given: argparse.Namespace) -> None:
    """Print what each arm gains over the start."""
    table = Table("Arm", "Weight", "Mean gain", *given.sets)
    tests = []
    for arm in given.arms:
        for share in (100, *given.shares):
            found = []
            for name in given.sets:
                rows = bench.over_seeds(f"{name} {arm}", given.seeds, name, share)
                found.append(compared(rows, [bench.score("start", name)]) if rows else None)
            there = [one for one in found if one is not None]
            tests += [(arm, share, one.p_value) for one in there]
            mean = f"{100 * fmean(one.difference for one in there):+.2f}" if there else ""
            table.add_row(
                arm, f"{share} %", mean, *("" if one is None else shown(one) for one in found)
            )
    starts = [f"{fmean(mean_of([bench.score('start', name)]).values()):.4f}" for name in given.sets]
    table.add_row("start", "", "", *starts)
    console = Console(width=180)
    console.print(table)
    corrected = holm_correction([p for _, _, p in tests]) if tests else []
    kept = [
        f"{arm} {share} %" for (arm, share, _), p in zip(tests, corrected, strict=True) if p < 0.05
    ]
    console.print(f"significant by Holm among {len(tests)}: {', '.join(kept) or 'none'}")


def main() -> None:
    """Run what is missing, then print."""
    parser = arguments_of(__doc__, "runs/compare_synthesis.jsonl")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument(
        "--arms", nargs="+", choices=ARMS, default=[arm for arm in ARMS if "file" not in ARMS[arm]]
    )
    parser.add_argument("--shares", type=int, nargs="*", default=[50], help="percent of blends")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=5e-5, help="learning rate")
    parser.add_argument("--more", type=int, default=0, help="documents beside those of the test")
    parser.add_argument("--written", type=Path, help="folders of `embedtrain synth`, one a set")
    given = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(Data(given.data), Ledger(given.results), given.models)
    for name in given.sets:
        bench.score("start", name)
    for seed in given.seeds:
        for name in given.sets:
            for arm in given.arms:
                run = f"{name} {arm} {seed}"
                if f"train {run}" not in bench.ledger.runs and not has_queries(
                    bench.data, name, arm
                ):
                    continue
                work = partial(train_arm, name, arm, seed, bench.data, given)
                bench.train(run, work, [name], given.shares)
    report(bench, given)


if __name__ == "__main__":
    run_main(main)
