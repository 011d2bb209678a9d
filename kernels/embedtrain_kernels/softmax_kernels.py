"""The step between two GEMMs: logits of a tile become exponentials, in place or in fewer bits."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["num_columns", "row_stride", "exponentials_stride"])
def exponentiate_rows(
    tile: tl.tensor,
    exponentials: tl.tensor,
    scale: tl.tensor,
    maximum: tl.tensor,
    total: tl.tensor,
    num_columns: tl.tensor,
    row_stride: tl.tensor,
    exponentials_stride: tl.tensor,
    has_scale: tl.constexpr,
    block_columns: tl.constexpr,
) -> None:
    """Write ``exp(logit - row maximum)`` of one row, which may replace it, and its maximum and sum.

    A logit is what the row holds, times ``scale`` of the row if there is one. A row is read twice and written once. A row of -inf alone gets the maximum -inf and the sum 0; a NaN
    reaches the sum.
    """
    row = tl.program_id(0).to(tl.int64)
    places = tl.arange(0, block_columns)
    start_of_row = tile + row * row_stride
    start_of_result = exponentials + row * exponentials_stride
    highest = tl.full([block_columns], float("-inf"), tl.float32)
    for begin in range(0, num_columns, block_columns):
        columns = begin + places
        logits = tl.load(start_of_row + columns, mask=columns < num_columns, other=float("-inf"))
        highest = tl.maximum(highest, logits)
    factor = tl.load(scale + row) if has_scale else 1.0
    peak = tl.max(highest, 0) * factor
    shift = tl.where(peak == float("-inf"), 0.0, peak)
    sums = tl.zeros([block_columns], tl.float32)
    for begin in range(0, num_columns, block_columns):
        columns = begin + places
        logits = tl.load(start_of_row + columns, mask=columns < num_columns, other=float("-inf"))
        values = tl.exp2((logits * factor - shift) * 1.4426950408889634)
        sums += values
        rounded = values.to(exponentials.dtype.element_ty)
        tl.store(start_of_result + columns, rounded, mask=columns < num_columns)
    tl.store(maximum + row, peak)
    tl.store(total + row, tl.sum(sums, 0))
