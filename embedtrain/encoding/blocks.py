"""How many texts are one piece of work: what a rank takes, and what a killed run finds done or not.

It depends on the number of texts alone. So a text stands among the same others, and gets the same bits, however
many ranks share the work.
"""

from embedtrain.models.chunking import Execution
from embedtrain.models.encoder import TextEncoder

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
