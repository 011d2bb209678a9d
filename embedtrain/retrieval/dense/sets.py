"""Search with sets of example texts instead of a query: what they share, without what others share."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from embedtrain.errors import UserError


def set_query(
    like: Sequence[Float32[np.ndarray, "_ dim"]],
    unlike: Sequence[Float32[np.ndarray, "_ dim"]] = (),
) -> Float32[np.ndarray, "1 dim"]:
    r"""Return the vector whose inner product with a text is the value of an operation on sets.

    $$\mathrm{SIM}(x, A) = \frac{1}{|A|} \sum_{a \in A} \langle x, a \rangle, \qquad
    v = \sum_{A \in \mathrm{like}} \bar a - \sum_{B \in \mathrm{unlike}} \bar b$$

    The intersection of sets is the sum of their similarities, the difference subtracts one, and a series does
    both; for vectors that are normalised the inner product with the mean is the mean cosine exactly.

    Source: Liu (2024), https://arxiv.org/abs/2404.17606 (SetCSE).

    Args:
        like: The vectors of each set that results should be like; at least one set.
        unlike: Of each set that they should be unlike.
    """
    if not like or any(len(members) == 0 for members in (*like, *unlike)):
        raise UserError("--like", "needs a set with at least one text", cure="Give a file of texts")
    total = np.sum([members.mean(axis=0) for members in like], axis=0)
    for members in unlike:
        total = total - members.mean(axis=0)
    return np.asarray(total, dtype=np.float32)[None]
