"""What the kernels that tile a score matrix share: where a tile lies, its products, and its masks."""

import triton
import triton.language as tl


@triton.jit
def tile_of_program(
    num_anchors: tl.tensor,
    num_candidates: tl.tensor,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Return row and column of this program's tile.

    Eight rows of tiles are walked together, column by column, so that the programs that run at the same time
    read few embeddings, which then come from the L2 cache.
    """
    row_blocks = tl.cdiv(num_anchors, block_rows)
    column_blocks = tl.cdiv(num_candidates, block_columns)
    program = tl.program_id(0)
    first = program // (8 * column_blocks) * 8
    height = tl.minimum(row_blocks - first, 8)
    within = program % (8 * column_blocks)
    return first + within % height, within // height


@triton.jit
def add_products(
    products: tl.tensor,
    anchor: tl.tensor,
    candidate: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    row_inside: tl.tensor,
    column_inside: tl.tensor,
    anchor_stride: tl.tensor,
    candidate_stride: tl.tensor,
    begin: tl.tensor,
    end: tl.tensor,
    block_depth: tl.constexpr,
    precision: tl.constexpr,
) -> tl.tensor:
    """Add the inner products of the coordinates from ``begin`` to ``end``.

    Both are numbers of the launch: a loop whose end is known is unrolled, and Triton 3.9 then spills
    registers for the addresses. They are multiples of 16, without which loads would be 2 bytes wide.
    """
    depth = tl.arange(0, block_depth)
    left_row = anchor + rows[:, None].to(tl.int64) * anchor_stride
    right_row = candidate + columns[None, :].to(tl.int64) * candidate_stride
    for start in range(begin, end, block_depth):
        places = tl.multiple_of(start, 16) + depth
        left = tl.load(
            left_row + places[None, :],
            mask=row_inside[:, None] & (places < end)[None, :],
            other=0.0,
        )
        right = tl.load(
            right_row + places[:, None],
            mask=column_inside[None, :] & (places < end)[:, None],
            other=0.0,
        )
        products = tl.dot(left, right, products, input_precision=precision)
    return products


@triton.jit
def without_listed(
    scores: tl.tensor,
    index: tl.tensor,
    inside: tl.tensor,
    lists: tl.tensor,
    others: tl.tensor,
    num_listed: tl.tensor,
) -> tl.tensor:
    """Set to -inf where ``lists[index]`` holds the number that ``others`` has on the other side.

    ``index`` and ``inside`` are ``[rows, 1]`` and ``others`` ``[1, columns]``, or the other way round. The
    length of the lists is a number of the launch: no form is compiled for it, and none is refused. ``-1`` fills
    lists up and equals nothing.
    """
    for place in range(num_listed):
        listed = tl.load(lists + index * num_listed + place, mask=inside, other=-1)
        scores = tl.where(listed == others, float("-inf"), scores)
    return scores


@triton.jit
def negatives_only(
    products: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    row_inside: tl.tensor,
    column_inside: tl.tensor,
    relevant: tl.tensor,
    candidate_keys: tl.tensor,
    anchor_keys: tl.tensor,
    answers: tl.tensor,
    num_relevant: tl.tensor,
    num_answers: tl.tensor,
    guarded: tl.constexpr,
) -> tl.tensor:
    """Set to -inf what lies outside and what keys exclude, in either orientation."""
    scores = tl.where(row_inside[:, None] & column_inside[None, :], products, float("-inf"))
    if num_relevant > 0:
        keys = tl.load(candidate_keys + columns, mask=column_inside, other=-2)
        scores = without_listed(
            scores, rows[:, None], row_inside[:, None], relevant, keys[None, :], num_relevant
        )
    if guarded:  # noqa: SIM102 - `and` would make a number of the launch of what is compiled in
        if num_answers > 0:
            keys = tl.load(anchor_keys + rows, mask=row_inside, other=-2)
            scores = without_listed(
                scores,
                columns[None, :],
                column_inside[None, :],
                answers,
                keys[:, None],
                num_answers,
            )
    return scores
