"""MaxSim against dense einsum with autograd: one forward and backward pass over all pairs of a batch.

Run through ``benchmark_ops.py``. Called directly with ``VARIANT BATCH_SIZE`` it measures one step. In the
promised figures every document has its full length; ``maxsim_ragged_*`` draws lengths between a third and all
of it, where the dense form computes the padding too.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from benchmark_measure import interleaved, measure_step
from torch import Tensor

from embedtrain.ops.maxsim.scores import maxsim
from embedtrain.types import TokenEmbeddings

SCRIPT = Path(__file__)
QUERY_TOKENS, DOCUMENT_TOKENS, DIM = 32, 180, 128
VARIANTS = ("chunked", "dense", "ragged_chunked", "ragged_dense")


def figures(*, quick: bool, png: Path | None) -> dict[str, float]:  # noqa: ARG001 - no plot here
    """Return all figures of this operation; ``quick`` takes a quarter of the batch and measures once."""
    batch_size, repeats = (32, 1) if quick else (128, 5)
    ours, dense, ragged, ragged_dense = interleaved(
        SCRIPT, [(variant, batch_size) for variant in VARIANTS], repeats
    )
    return {
        "maxsim_time_ratio": ours.cpu_seconds / dense.cpu_seconds,
        "maxsim_memory_ratio": ours.peak_mib / dense.peak_mib,
        "maxsim_ragged_time_ratio": ragged.cpu_seconds / ragged_dense.cpu_seconds,
        "maxsim_ragged_memory_ratio": ragged.peak_mib / ragged_dense.peak_mib,
        "maxsim_seconds": ours.cpu_seconds,
        "maxsim_extra_memory_mib": ours.peak_mib,
        "maxsim_dense_seconds": dense.cpu_seconds,
        "maxsim_dense_extra_memory_mib": dense.peak_mib,
    }


def _step(variant: str, batch_size: int) -> Callable[[], object]:
    """Prepare one forward and backward pass."""
    torch.manual_seed(0)
    query, document = (
        F.normalize(torch.randn(batch_size, tokens, DIM), dim=-1).requires_grad_()
        for tokens in (QUERY_TOKENS, DOCUMENT_TOKENS)
    )
    ragged = variant.startswith("ragged")
    shortest = DOCUMENT_TOKENS // 3 if ragged else DOCUMENT_TOKENS
    lengths = torch.randint(shortest, DOCUMENT_TOKENS + 1, (batch_size, 1))
    document_mask = torch.arange(DOCUMENT_TOKENS) < lengths
    query_lengths = torch.full((batch_size,), QUERY_TOKENS)
    labels = torch.arange(batch_size)

    def chunked() -> Tensor:
        queries = TokenEmbeddings(query.flatten(0, 1), query_lengths)
        documents = document[document_mask] if ragged else document.flatten(0, 1)
        return maxsim(queries, TokenEmbeddings(documents, lengths[:, 0]))

    def dense() -> Tensor:
        similarity = torch.einsum("qid,njd->qnij", query, document)
        if ragged:
            similarity = similarity.masked_fill(~document_mask[None, :, None], -torch.inf)
        return similarity.max(-1).values.sum(-1)

    score = dense if variant.endswith("dense") else chunked
    return lambda: F.cross_entropy(score(), labels).backward()


if __name__ == "__main__":
    name, count = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    _step(name, 4)()  # loads libraries
    print(json.dumps(measure_step(_step(name, count))._asdict()))
