"""Matryoshka over InfoNCE: all prefixes in one pass against one call per prefix, and against the full size alone.

Run through ``benchmark_ops.py``. Called directly with ``VARIANT PAIRS`` it measures one forward and backward pass.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from benchmark_measure import interleaved, measure_step
from torch import Tensor

from embedtrain.ops.infonce.loss import infonce
from embedtrain.ops.infonce.nested import Sizes, infonce_nested
from embedtrain.ops.infonce.problem import make_problem

SCRIPT = Path(__file__)
SIZES = Sizes((24, 48, 96, 192, 384), (1.0,) * 5)
VARIANTS = ("together", "separate", "full")
TEMPERATURE = 0.05


def figures(*, quick: bool, png: Path | None) -> dict[str, float]:  # noqa: ARG001 - no plot here
    """Return all figures of this operation; ``quick`` shrinks the batches, measures once."""
    batches, repeats = ((512,), 1) if quick else ((1024, 8192), 3)
    found: dict[str, float] = {}
    for pairs in batches:
        together, separate, full = interleaved(
            SCRIPT, [(variant, pairs) for variant in VARIANTS], repeats
        )
        place = f"matryoshka_{pairs}"
        found |= {
            f"{place}_one_pass_over_separate": together.cpu_seconds / separate.cpu_seconds,
            f"{place}_one_pass_over_full_size": together.cpu_seconds / full.cpu_seconds,
            f"{place}_extra_memory_mib": together.peak_mib,
            f"{place}_separate_extra_memory_mib": separate.peak_mib,
        }
    return found


def _loss(variant: str, query: Tensor, document: Tensor) -> Tensor:
    positives = torch.arange(len(query))[:, None]
    if variant == "together":
        problem = make_problem(query, document, positives, TEMPERATURE)
        return infonce_nested(problem, SIZES, normalize=True).loss
    if variant == "full":
        return infonce(query, document, positives, TEMPERATURE).loss
    losses = []
    for dim in SIZES.dims:
        cut = [F.normalize(vectors[:, :dim], dim=1) for vectors in (query, document)]
        losses.append(infonce(*cut, positives, TEMPERATURE).loss)
    return torch.stack(losses).sum()


def _step(variant: str, pairs: int) -> Callable[[], object]:
    """Prepare one forward and backward pass."""
    generator = torch.Generator().manual_seed(0)
    query = F.normalize(torch.randn(pairs, SIZES.dims[-1], generator=generator), dim=1)
    noise = torch.randn(pairs, SIZES.dims[-1], generator=generator)
    document = F.normalize(query + 0.1 * noise, dim=1).requires_grad_()
    query.requires_grad_()
    return lambda: _loss(variant, query, document).backward()


if __name__ == "__main__":
    name, count = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    _step(name, 64)()  # loads libraries
    print(json.dumps(measure_step(_step(name, count))._asdict()))
