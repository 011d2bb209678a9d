"""How many texts are one piece of work: what a rank takes, and what a killed run finds done or not.

It depends on the number of texts alone. So a text stands among the same others, and gets the same bits, however
many ranks share the work.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float32
from torch import Tensor

from embedtrain.encoding.arrival import pageable
from embedtrain.encoding.shards import Shard
from embedtrain.encoding.texts import encode_pieces, encode_texts, join_blocks
from embedtrain.models.chunking import Execution
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.precision import Precision
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import Embeddings, Side, TokenEmbeddings, TokenVectors

Vectors = Float32[np.ndarray, "_ dim"] | TokenVectors | SparseVectors

FEWEST, MOST = 128, 4096
"""Texts of a block: enough to keep a device busy."""
PIECES = 64
"""Blocks wanted: 8 ranks then differ by an eighth of their work at most."""


def block_size(num_texts: int) -> int:
    """Return the texts of a block: of few texts few, that several ranks have something to do."""
    size = FEWEST
    while size < MOST and size * PIECES < num_texts:
        size *= 2
    return size


def block_starts(num_texts: int) -> range:
    """Return the number of the first text of each block."""
    return range(0, num_texts, block_size(num_texts))


def small_chunks(model: TextEncoder) -> Execution:
    """Return the chunks to encode in: on a CPU small ones, which stay in its cache and need little memory."""
    return Execution(chunk_tokens=2048 if model.device.type == "cpu" else 65_536)


def own_blocks(num_texts: int, shard: Shard, first: int = 0) -> list[int]:
    """Return the numbers of the blocks that a rank takes, where ``first`` blocks of others were given out before."""
    num_blocks = len(block_starts(num_texts))
    return [number for number in range(num_blocks) if shard.takes(first + number)]


def encode_share(
    model: TextEncoder,
    texts: Sequence[str],
    side: Side,
    numbers: Sequence[int],
    *,
    precision: Precision = "auto",
    agree: Callable[[int], int] | None = None,
) -> list[Vectors]:
    """Encode some of the blocks of texts and return the vectors of each.

    Args:
        model: The encoder.
        texts: All of them.
        side: Whose prompt and length to use.
        numbers: Which blocks.
        precision: What the network computes in.
        agree: From this rank's number of something to the largest of all. Where weights are sharded each pass
            fetches them from the others, so all ranks must run as many blocks, and as many chunks of each: a rank
            with fewer encodes a block for nothing.
    """
    size = block_size(len(texts))
    idle = 0 if agree is None else agree(len(numbers)) - len(numbers)
    run = [*numbers, *[numbers[-1] if numbers else 0] * idle]
    blocks = (texts[number * size : (number + 1) * size] for number in run)
    execution = replace(small_chunks(model), agree=agree)
    if isinstance(model, SparseEncoder):  # in pieces: whole blocks are too large before thinning
        encoded: list[Vectors] = [
            encode_texts(model, block, side, execution=execution, precision=precision)
            for block in blocks
        ]
        return encoded[: len(numbers)]
    pieces = encode_pieces(model, blocks, side, execution=execution, precision=precision)
    return [_as_vectors(piece) for piece in pieces][: len(numbers)]


def _as_vectors(block: Embeddings) -> Vectors:
    if isinstance(block, TokenEmbeddings):
        return join_blocks([block])
    kept = pageable(block)
    assert isinstance(kept, Tensor)
    return kept.numpy()


def join_shares(shares: Sequence[Sequence[Vectors]], num_texts: int, first: int = 0) -> Vectors:
    """Lay the blocks that the ranks have encoded, rank by rank, in the order of the texts."""
    by_number: dict[int, Vectors] = {}
    for rank, share in enumerate(shares):
        by_number |= dict(
            zip(own_blocks(num_texts, Shard(rank, len(shares)), first), share, strict=True)
        )
    blocks = [by_number[number] for number in sorted(by_number)]
    arrays = [block for block in blocks if isinstance(block, np.ndarray)]
    if arrays:
        return np.concatenate(arrays)
    if sparse := [block for block in blocks if isinstance(block, SparseVectors)]:
        return SparseVectors.joined(sparse)
    return join_blocks([block.tensors() for block in blocks if isinstance(block, TokenVectors)])
