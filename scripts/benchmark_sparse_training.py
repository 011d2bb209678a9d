"""One step of SPLADE beside sentence-transformers' losses, and beside a dense step of the same backbone: time and memory.

Everybody computes the same loss on the same pairs of python_docs: softmax over in-batch negatives, and FLOPS of both sides.
Each variant has a process of its own with one thread; losses must agree. Usage:
python scripts/benchmark_sparse_training.py MODEL [--batch 64] [--repeats 3] [--json FILE], where MODEL has a masked-language
head, such as package:cognition/model. ``plain`` is left out with --no-plain, where its logits would not fit.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from benchmark_measure import Measurement, count, in_subprocess, measure_step
from benchmark_training import LENGTHS, our_batch, read_pairs
from exit_codes import run_main
from torch import nn

from embedtrain.models.backbone.fetching import fetch
from embedtrain.models.build import build_dense, build_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.sparse.config import SparseConfig
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.sparsity import Penalty, Sparsity

SCRIPT = Path(__file__)
QUERY_PRICE, DOCUMENT_PRICE = 3e-4, 1e-4
CHUNK_TOKENS = 2048
MINI_BATCH = 16
TOLERANCE = 1e-4


def main() -> None:
    """Run all variants in turn, print and write their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--batch", type=count, default=64, help="queries of the step")
    parser.add_argument("--repeats", type=count, default=3)
    parser.add_argument("--no-plain", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    variants = [name for name in VARIANTS if not (name == "plain" and arguments.no_plain)]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for _ in range(arguments.repeats):
        for name in variants:
            found[name].append(in_subprocess(SCRIPT, [RUN, name, arguments.model, arguments.batch]))
    figures = summarise(found)
    for name, value in figures.items():
        print(f"{name:40s} {value:12.4f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def summarise(found: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """Return medians and ratios, unless the losses differ."""
    figures = {}
    for name, runs in found.items():
        for key in ("cpu_seconds", "peak_mib", "loss"):
            figures[f"{name}_{key}"] = statistics.median(run[key] for run in runs)
    ours = figures["ours_loss"]
    for name in found:
        if name != "dense" and abs(figures[f"{name}_loss"] - ours) > TOLERANCE * abs(ours):
            sys.exit(f"{name} computes another loss: {figures[f'{name}_loss']}, ours {ours}")
    figures["cached_over_ours_time_ratio"] = (
        figures["cached_cpu_seconds"] / figures["ours_cpu_seconds"]
    )
    figures["ours_over_dense_memory_ratio"] = figures["ours_peak_mib"] / figures["dense_peak_mib"]
    return figures


def ours(path: str, batch_size: int) -> Callable[[], float]:
    """Prepare a step of embedtrain."""
    sides = {side: {"length": length} for side, length in LENGTHS.items()}
    model = build_encoder(SparseConfig(kind="sparse", backbone=path, dropout=0.0, **sides)).train()
    objective = Sparsity(
        inner=InfoNCE(temperature=1.0),
        query=Penalty(weight=QUERY_PRICE),
        document=Penalty(weight=DOCUMENT_PRICE),
    )
    return _our_step(model, objective, batch_size)


def dense(path: str, batch_size: int) -> Callable[[], float]:
    """Prepare a step of embedtrain with one vector per text from the same backbone."""
    sides = {side: {"length": length} for side, length in LENGTHS.items()}
    config = DenseConfig(backbone=path, dropout=0.0, pooling="mean", **sides)
    return _our_step(build_dense(config).train(), InfoNCE(), batch_size)


def _our_step(model: nn.Module, objective: InfoNCE | Sparsity, size: int) -> Callable[[], float]:
    pairs = read_pairs(size)

    def of(number: int) -> Callable[[], float]:
        batch = our_batch(model, pairs[:number])

        def step() -> float:
            loss = objective(model(batch, Execution(CHUNK_TOKENS, rematerialize=True))).loss
            loss.backward()
            return loss.item()

        return step

    of(4)()  # packing is checked, libraries are loaded
    model.zero_grad()
    return of(size)


def _theirs(path: str, batch_size: int, *, cached: bool) -> Callable[[], float]:
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder import losses

    model = SparseEncoder(str(fetch(path)), device="cpu").train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    inner = losses.SparseMultipleNegativesRankingLoss(model, scale=1.0)
    prices = {
        "document_regularizer_weight": DOCUMENT_PRICE,
        "query_regularizer_weight": QUERY_PRICE,
    }
    if cached:
        loss_of = losses.CachedSpladeLoss(model, inner, mini_batch_size=MINI_BATCH, **prices)
    else:
        loss_of = losses.SpladeLoss(model, inner, **prices)

    pairs = read_pairs(batch_size)

    def of(number: int) -> Callable[[], float]:
        features = []
        for place, length in enumerate(LENGTHS.values()):
            model.max_seq_length = length
            features.append(model.preprocess([pair[place] for pair in pairs[:number]]))

        def step() -> float:
            loss = sum(loss_of([dict(part) for part in features], None).values())
            loss.backward()
            return loss.item()

        return step

    of(4)()
    model.zero_grad()
    return of(batch_size)


VARIANTS: dict[str, Callable[[str, int], Callable[[], float]]] = {
    "ours": ours,
    "cached": lambda path, size: _theirs(path, size, cached=True),
    "plain": lambda path, size: _theirs(path, size, cached=False),
    "dense": dense,
}
RUN = "--measure"


def measure(variant: str, path: str, batch_size: str) -> None:
    """Print what one step of a variant costs, and its loss."""
    torch.set_num_threads(1)
    losses: list[float] = []
    step = VARIANTS[variant](path, int(batch_size))
    cost: Measurement = measure_step(lambda: losses.append(step()))
    print(json.dumps(cost._asdict() | {"loss": losses[0]}))


if __name__ == "__main__":
    if sys.argv[1:2] == [RUN]:
        measure(*sys.argv[2:])
    else:
        run_main(main)
