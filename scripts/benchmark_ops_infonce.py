"""InfoNCE against bare GEMMs, plain torch, torch's chunked operator and sentence-transformers.

Run through ``benchmark_ops.py``. Called directly with ``VARIANT QUERIES DIM`` it measures one step.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from benchmark_measure import MIB, Measurement, interleaved, measure_step
from torch import Tensor

from embedtrain.ops.infonce.loss import infonce

SCRIPT = Path(__file__)
TEMPERATURE = 0.05
CHUNK = 512
"""Rows per GEMM of the bare baseline, and of torch's operator beside its own choice."""
PEER_BATCH = 32
"""Default mini-batch of the cached loss of sentence-transformers 6.2."""
QUERY_PAIRS = 1024
"""Size of the low-precision comparison."""


def figures(*, quick: bool, png: Path | None) -> dict[str, float]:
    """Return all figures of this operation; ``quick`` divides sizes by 8 and measures once."""
    shrink, repeats = (8, 1) if quick else (1, 3)
    large = 16_384 // shrink

    def run(variants: list[str], num_queries: int, dim: int) -> list[Measurement]:
        return interleaved(SCRIPT, [(v, num_queries, dim) for v in variants], repeats)

    ours_wide, gemm = run(["infonce", "gemm"], large, 768)
    names = ["infonce", "naive", "torch_auto", "torch_chunked"]
    ours, naive, *operators = run(names, large, 384)
    ours_small, peer = run(["infonce", "cached_peer"], 4_096 // shrink, 384)
    half, full = (
        interleaved(SCRIPT, [("infonce", 65_536 // shrink // part, 384)], 1)[0] for part in (2, 1)
    )
    found = {
        "infonce_over_gemm": ours_wide.cpu_seconds / gemm.cpu_seconds,
        "infonce_over_naive": ours.cpu_seconds / naive.cpu_seconds,
        "infonce_over_torch_linear_cross_entropy": ours.cpu_seconds
        / min(operator.cpu_seconds for operator in operators),
        "infonce_over_cached_peer": ours_small.cpu_seconds / peer.cpu_seconds,
        "infonce_memory_over_naive": ours.peak_mib / naive.peak_mib,
        "infonce_extra_memory_mib": full.peak_mib,
        "infonce_extra_memory_beyond_gradients_mib": full.peak_mib
        - 2 * 65_536 // shrink * 384 * 4 / MIB,
        "infonce_extra_memory_growth": full.peak_mib / half.peak_mib / 2,
        "infonce_seconds": ours.cpu_seconds,
        **_precision(),
    }
    if png is not None:
        _plot(png, shrink)
    return found


def _inputs(num_queries: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return normalised queries, documents near them, and the columns of the positives."""
    torch.manual_seed(0)
    query = F.normalize(torch.randn(num_queries, dim), dim=1)
    document = F.normalize(query + 2.4 * torch.randn(num_queries, dim) / dim**0.5, dim=1)
    return (
        query.requires_grad_(),
        document.requires_grad_(),
        torch.arange(num_queries)[:, None],
    )


def _step(variant: str, num_queries: int, dim: int) -> Callable[[], object]:
    """Prepare one forward and backward pass."""
    query, document, positives = _inputs(num_queries, dim)
    labels, scale = positives[:, 0], 1 / TEMPERATURE

    def by_torch(**chunk: int) -> None:
        options = torch.nn.LinearCrossEntropyOptions(**chunk)
        F.linear_cross_entropy(query * scale, document, labels, options=options).backward()

    def ours() -> None:
        infonce(query, document, positives, TEMPERATURE).loss.backward()

    steps: dict[str, Callable[[], object]] = {
        "infonce": ours,
        "naive": lambda: F.cross_entropy((query @ document.T) * scale, labels).backward(),
        "torch_auto": by_torch,
        "torch_chunked": lambda: by_torch(batch_chunk_size=CHUNK),
        "cached_peer": lambda: _peer_loss([[query], [document]]),
        "gemm": lambda: _three_gemms(query.detach(), document.detach()),
    }
    return steps[variant]


def _three_gemms(query: Tensor, document: Tensor) -> None:
    """Do the multiplications that no exact method can leave out, and nothing else."""
    tile = query.new_empty(min(CHUNK, len(query)), len(document))
    by_query, by_document = torch.empty_like(query), torch.zeros_like(document)
    for start in range(0, len(query), CHUNK):
        rows = query[start : start + CHUNK]
        scores = tile[: len(rows)]
        torch.mm(rows, document.T, out=scores)
        torch.mm(scores, document, out=by_query[start : start + CHUNK])
        by_document.addmm_(scores.T, rows)


def _peer_loss(embeddings: list[list[Tensor]], temperature: float = TEMPERATURE) -> Tensor:
    """Compute the loss stage of the cached loss of sentence-transformers, with its backward pass."""
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
    )

    model = torch.nn.Sequential(torch.nn.Identity())
    loss = CachedMultipleNegativesRankingLoss(
        model, scale=1 / temperature, mini_batch_size=PEER_BATCH
    )
    result: Tensor = loss.calculate_loss(embeddings, with_backward=True)
    return result


def _precision() -> dict[str, float]:
    """Compare gradients from bfloat16 embeddings with those of the same embeddings unrounded.

    Positives score 0.70 and negatives 0.54 +- 0.03 in 768 dimensions, as those of a trained encoder; ours
    takes bfloat16 embeddings, the peer runs under bfloat16 autocast as its trainer does.
    """
    torch.manual_seed(0)
    turned, _ = torch.linalg.qr(torch.randn(768, 256, dtype=torch.float64))
    common = F.normalize(torch.randn(256, dtype=torch.float64), dim=0)
    own, other = F.normalize(torch.randn(2, QUERY_PAIRS, 256, dtype=torch.float64), dim=2)
    near = F.normalize(0.348 * own + (1 - 0.348**2) ** 0.5 * other, dim=1)
    query, document = (
        F.normalize(0.54**0.5 * common + 0.46**0.5 * rows, dim=1) @ turned.T for rows in (own, near)
    )
    found = {}
    for temperature in (0.05, 0.02, 0.01):
        key = f"bf16_gradient_error_tau_{temperature:g}".replace(".", "_")
        found[key] = _gradient_error(_our_gradients, query, document, temperature)
        found[f"{key}_peer"] = _gradient_error(_peer_gradients, query, document, temperature)
    return found


def _gradient_error(
    gradients: Callable[[Tensor, Tensor, float], Tensor],
    query: Tensor,
    document: Tensor,
    temperature: float,
) -> float:
    exact = gradients(query, document, temperature)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = gradients(query.bfloat16(), document.bfloat16(), temperature)
    return float((rounded.double() - exact).norm() / exact.norm())


def _our_gradients(query: Tensor, document: Tensor, temperature: float) -> Tensor:
    inputs = [rows.clone().requires_grad_() for rows in (query, document)]
    positives = torch.arange(len(query))[:, None]
    loss = infonce(inputs[0], inputs[1], positives, temperature).loss
    return torch.cat(torch.autograd.grad(loss, inputs))


def _peer_gradients(query: Tensor, document: Tensor, temperature: float) -> Tensor:
    inputs = [rows.clone().requires_grad_() for rows in (query, document)]
    _peer_loss([[rows] for rows in inputs], temperature)
    return torch.cat([rows.grad for rows in inputs if rows.grad is not None])


def _plot(folder: Path, shrink: int) -> None:
    """Draw time and memory against the number of queries, both axes logarithmic."""
    from matplotlib.figure import Figure

    sizes = [size // shrink for size in (1024, 2048, 4096, 8192, 16_384)]
    variants = {
        "infonce": "embedtrain",
        "naive": "plain torch",
        "torch_auto": "torch linear_cross_entropy",
        "cached_peer": "sentence-transformers cached, mini-batch 32",
    }
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    for variant, label in variants.items():
        reach = [size for size in sizes if variant != "cached_peer" or size <= 4096]
        points = [interleaved(SCRIPT, [(variant, size, 384)], 1)[0] for size in reach]
        panels[0].loglog(reach, [point.cpu_seconds for point in points], "o-", label=label)
        panels[1].loglog(reach, [point.peak_mib for point in points], "o-", label=label)
    for panel, title in zip(panels, ("CPU seconds", "peak memory (MiB)"), strict=True):
        panel.set_xlabel("queries = documents (384 dimensions, float32, 1 thread)")
        panel.set_title(f"InfoNCE forward and backward: {title}")
        panel.grid(visible=True, which="both", alpha=0.3)
    panels[0].legend()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "infonce.png", dpi=120)


if __name__ == "__main__":
    name, count, width = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    _step(name, 64, 64)()  # loads libraries
    print(json.dumps(measure_step(_step(name, count, width))._asdict()))
