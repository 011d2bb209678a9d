"""Keep the largest entries of each row; the others become 0."""

from jaxtyping import Float
from torch import Tensor


def keep_largest(
    rows: Float[Tensor, "rows columns"], count: int | None
) -> Float[Tensor, "rows columns"]:
    """Return the rows with all but their ``count`` largest entries set to 0; None keeps all.

    The gradient reaches the entries that were kept, and no others.
    """
    if count is None or count >= rows.shape[1]:
        return rows
    kept = rows.topk(count, dim=1)
    return rows.new_zeros(rows.shape).scatter(1, kept.indices, kept.values)
