"""What does search by sparse vectors cost: bytes, seconds to build, time of a query, and what is missed?

    python scripts/benchmark_sparse_search.py --documents 1000000 --json sparse_search.json

Documents are made: some 120 different words each of 30,522, drawn by Zipf's law, with weights of a gamma
distribution; queries have 30. bm25s searches the very same lists (it has no weights of queries) with its own code,
from the numbers of the words. Seismic is measured with ``--seismic``, where it is installed. One thread.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import bm25s
import numpy as np
import torch
from exit_codes import run_main
from jaxtyping import Float64
from rich.console import Console
from rich.table import Table

from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.indexes import build, read_index
from embedtrain.retrieval.sparse.exact import InvertedIndex
from embedtrain.retrieval.sparse.posting_lists import PostingLists
from embedtrain.retrieval.sparse.two_step import TwoStepIndex
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.units import show_bytes, show_seconds

WORDS, TEXTS_AT_ONCE, RESULTS = 30_522, 2**15, 10
INDEXES = (
    "exact",
    "uint8",
    "two_step",
    "two_step:document_words=32,query_words=5,num_candidates=50",
)


def draw(texts: int, words: int, generator: np.random.Generator) -> SparseVectors:
    """Make texts of so many different words at most; a drawn word that a text has already is not drawn anew."""
    frequency: Float64[np.ndarray, " words"] = 1 / (np.arange(WORDS) + 10.0)
    ends = np.cumsum(frequency / frequency.sum())
    blocks = []
    for start in range(0, texts, TEXTS_AT_ONCE):
        here = min(TEXTS_AT_ONCE, texts - start)
        drawn = np.searchsorted(ends, generator.random((here, words))).clip(max=WORDS - 1)
        keys = np.unique(drawn + np.arange(here)[:, None] * WORDS)
        offsets = np.searchsorted(keys, np.arange(here + 1) * WORDS)
        values = generator.gamma(2.0, 0.4, len(keys)).astype(np.float32)
        blocks.append(SparseVectors(values, (keys % WORDS).astype(np.int32), offsets, WORDS))
    return SparseVectors.joined(blocks)


def time_queries(
    search: Callable[[SparseVectors], object], queries: SparseVectors
) -> dict[str, float]:
    """Search query by query; return seconds."""
    seconds = []
    for number in range(len(queries)):
        one = queries.part(number, number + 1)
        start = time.perf_counter()
        search(one)
        seconds.append(time.perf_counter() - start)
    p50, p99 = np.quantile(seconds, [0.5, 0.99]).tolist()
    return {"p50_seconds": p50, "p99_seconds": p99}


def shares(exact: SearchResult, found: SearchResult) -> float:
    """Return the share of the exact best documents that were found."""
    pairs = zip(exact.indices, found.indices, strict=True)
    return float(np.mean([np.isin(one, other).mean() for one, other in pairs]))


def measure(
    words: str, documents: SparseVectors, queries: SparseVectors, exact: SearchResult | None
) -> tuple[dict[str, float], SearchResult]:
    """Build an index and measure it; ``exact`` is None for the exact one itself."""
    built = build(documents, read_index(words, "sparse"))
    index = built.index
    found = index.search(queries, RESULTS)
    figures = {
        "bytes_per_document": index.num_bytes / len(documents),
        "build_seconds": built.seconds,
        "recall_at_10": 1.0 if exact is None else shares(exact, found),
    }
    if isinstance(index, InvertedIndex | TwoStepIndex):
        figures["postings"] = float(index.touched(queries).mean())
    return figures | time_queries(lambda one: index.search(one, RESULTS), queries), found


def measure_bm25s(documents: SparseVectors, queries: SparseVectors) -> dict[str, float]:
    """Let bm25s search the same lists with its own code."""
    lists, other = PostingLists.of(documents), bm25s.BM25()
    other.scores = {
        "data": lists.weights, "indices": lists.rows, "indptr": lists.starts,
        "num_docs": lists.num_documents,
    }  # fmt: skip
    other.nonoccurrence_array = None

    def search(one: SparseVectors) -> object:
        return bm25s.selection.topk(other.get_scores_from_ids(one.indices), RESULTS)

    size = lists.weights.nbytes + lists.rows.nbytes + lists.starts.nbytes
    figures = {"bytes_per_document": size / len(documents)}
    return (
        figures | {"postings": float(lists.touched(queries).mean())} | time_queries(search, queries)
    )


def show(found: dict[str, dict[str, float]]) -> Table:
    """Lay the figures out."""
    table = Table(
        "index",
        "per document",
        "built in",
        "query, median",
        "99th percentile",
        "postings",
        "recall@10",
    )
    for name, figures in found.items():
        table.add_row(
            name,
            show_bytes(figures["bytes_per_document"]),
            show_seconds(figures["build_seconds"]) if "build_seconds" in figures else "",
            show_seconds(figures["p50_seconds"]),
            show_seconds(figures["p99_seconds"]),
            f"{figures['postings']:,.0f}" if "postings" in figures else "",
            f"{figures['recall_at_10']:.3f}" if "recall_at_10" in figures else "",
        )
    return table


def main() -> None:
    """Print the table; optionally write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument(
        "--seismic", action="store_true", help="measure it too: it builds for minutes"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    documents, queries = draw(chosen.documents, 132, generator), draw(chosen.queries, 30, generator)
    found: dict[str, dict[str, float]] = {}
    exact = None
    for words in (*INDEXES, *(("seismic",) if chosen.seismic else ())):
        found[words], results = measure(words, documents, queries, exact)
        exact = exact or results
    found["bm25s"] = measure_bm25s(documents, queries)
    Console().print(f"{len(documents):,} documents of {documents.lengths.mean():.0f} words")
    Console().print(show(found))
    if chosen.json is not None:
        flat = {f"{name} {key}": value for name, row in found.items() for key, value in row.items()}
        chosen.json.write_text(json.dumps(flat, indent=2), encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
