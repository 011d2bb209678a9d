"""Linear cross-entropy against ``F.linear`` and ``F.cross_entropy``: the head of a masked language model.

Run through ``benchmark_ops.py``. Called directly with ``VARIANT TOKENS VOCABULARY`` it measures one forward and
backward pass with a bias. ``ignored`` labels 15 % of the rows, as masking does.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from benchmark_measure import interleaved, measure_step
from torch import Tensor

from embedtrain.ops.linear_cross_entropy import linear_cross_entropy

SCRIPT = Path(__file__)
DIM = 384
IGNORED_RATIO = 0.85
VARIANTS = ("chunked", "naive", "torch", "ignored")


def figures(*, quick: bool, png: Path | None) -> dict[str, float]:  # noqa: ARG001 - no plot here
    """Return all figures of this operation; ``quick`` shrinks tokens and vocabulary, measures once."""
    sizes, repeats = ((1024, 8192), 1) if quick else ((4096, 30_522), 3)
    ours, naive, operator, ignored = interleaved(
        SCRIPT, [(variant, *sizes) for variant in VARIANTS], repeats
    )
    return {
        "linear_cross_entropy_time_ratio": ours.cpu_seconds / naive.cpu_seconds,
        "linear_cross_entropy_memory_ratio": ours.peak_mib / naive.peak_mib,
        "linear_cross_entropy_ignored_ratio": ignored.cpu_seconds / ours.cpu_seconds,
        "linear_cross_entropy_over_torch_time_ratio": ours.cpu_seconds / operator.cpu_seconds,
        "linear_cross_entropy_over_torch_memory_ratio": ours.peak_mib / operator.peak_mib,
        "linear_cross_entropy_seconds": ours.cpu_seconds,
        "linear_cross_entropy_extra_memory_mib": ours.peak_mib,
        "linear_cross_entropy_naive_seconds": naive.cpu_seconds,
        "linear_cross_entropy_naive_extra_memory_mib": naive.peak_mib,
    }


def _step(variant: str, num_tokens: int, vocabulary: int) -> Callable[[], object]:
    """Prepare one forward and backward pass."""
    torch.manual_seed(0)
    hidden = torch.randn(num_tokens, DIM).requires_grad_()
    weight = (torch.randn(vocabulary, DIM) * 0.05).requires_grad_()
    bias = torch.zeros(vocabulary, requires_grad=True)
    labels = torch.randint(vocabulary, (num_tokens,))
    if variant == "ignored":
        labels[torch.rand(num_tokens) < IGNORED_RATIO] = -100

    def by_torch() -> Tensor:
        options = torch.nn.LinearCrossEntropyOptions()
        return F.linear_cross_entropy(hidden, weight, labels, linear_bias=bias, options=options)

    def ours() -> Tensor:
        return linear_cross_entropy(hidden, weight, labels, bias)

    losses: dict[str, Callable[[], Tensor]] = {
        "chunked": ours,
        "ignored": ours,
        "naive": lambda: F.cross_entropy(F.linear(hidden, weight, bias), labels),
        "torch": by_torch,
    }
    return lambda: losses[variant]().backward()


if __name__ == "__main__":
    name, count, entries = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    _step(name, 16, 64)()  # loads libraries
    print(json.dumps(measure_step(_step(name, count, entries))._asdict()))
