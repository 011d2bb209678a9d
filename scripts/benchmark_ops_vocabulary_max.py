"""Max-pooled vocabulary logits behind a ReLU (SPLADE's head) against logits of every token and ``amax``.

Run through ``benchmark_ops.py``. Called directly with ``VARIANT TEXTS TOKENS VOCABULARY`` it measures one forward and
backward pass. ``few`` follows the entries whose gradient is not 0 (1 % of them), ``all`` follows every winner.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from benchmark_measure import interleaved, measure_step
from torch import Tensor

from embedtrain.ops.vocabulary_max import vocabulary_max

SCRIPT = Path(__file__)
DIM = 384
POSITIVE = 0.01
"""Share of the entries with weight, as of a trained model: 300 of 30,522."""
VARIANTS = ("few", "all", "naive")


def figures(*, quick: bool, png: Path | None) -> dict[str, float]:  # noqa: ARG001 - no plot here
    """Return all figures of this operation; ``quick`` shrinks the sizes, measures once."""
    sizes, repeats = ((16, 32, 8192), 1) if quick else ((64, 64, 30_522), 3)
    few, every, naive = interleaved(SCRIPT, [(variant, *sizes) for variant in VARIANTS], repeats)
    return {
        "vocabulary_max_time_ratio": few.cpu_seconds / naive.cpu_seconds,
        "vocabulary_max_memory_ratio": few.peak_mib / naive.peak_mib,
        "vocabulary_max_few_over_all_time_ratio": few.cpu_seconds / every.cpu_seconds,
        "vocabulary_max_seconds": few.cpu_seconds,
        "vocabulary_max_extra_memory_mib": few.peak_mib,
        "vocabulary_max_naive_seconds": naive.cpu_seconds,
        "vocabulary_max_naive_extra_memory_mib": naive.peak_mib,
    }


def _step(variant: str, num_texts: int, length: int, vocabulary: int) -> Callable[[], object]:
    """Prepare one forward and backward pass."""
    torch.manual_seed(0)
    hidden = torch.randn(num_texts * length, DIM).requires_grad_()
    weight = (torch.randn(vocabulary, DIM) / DIM**0.5).requires_grad_()
    lengths = torch.full((num_texts,), length)
    with torch.no_grad():
        sample = vocabulary_max(hidden[: 4 * length], lengths[:4], weight[:2000])
    offset = -sample.flatten().quantile(1 - POSITIVE).item()
    bias = torch.full((vocabulary,), offset, requires_grad=True)

    def naive() -> Tensor:
        logits = hidden.view(num_texts, length, DIM) @ weight.T + bias
        return logits.amax(1)

    def ours() -> Tensor:
        return vocabulary_max(hidden, lengths, weight, bias, few_gradients=variant == "few")

    largest = naive if variant == "naive" else ours

    def step() -> None:
        weights = largest().relu().log1p()
        weights.square().sum().backward()

    return step


if __name__ == "__main__":
    name, *sizes = sys.argv[1:]
    torch.set_num_threads(1)
    _step(name, 4, 8, 2048)()  # loads libraries
    print(json.dumps(measure_step(_step(name, *map(int, sizes)))._asdict()))
