"""InfoNCE backward: each program scores one tile again and stores the loss's slope along every score.

Library GEMMs then make gradients of the slopes, so the size of an embedding costs no registers here, and
products run at the library's speed. Slopes are held for as many rows at a time as a buffer has room for. Nothing
is atomic: a gradient is bitwise the same on every run.
"""

import triton
import triton.language as tl

from embedtrain_kernels.tiles import add_products, negatives_only, tile_of_program


@triton.jit(
    do_not_specialize=[
        *("num_anchors", "num_candidates", "num_labels", "num_relevant", "num_answers"),
        "num_sizes",
    ]
)
def infonce_slopes(  # noqa: C901 - the forms are branches of what is compiled
    anchor: tl.tensor,
    candidate: tl.tensor,
    slopes: tl.tensor,
    log2_scale: tl.tensor,
    candidate_scale: tl.tensor,
    bounds: tl.tensor,
    labels: tl.tensor,
    relevant: tl.tensor,
    candidate_keys: tl.tensor,
    anchor_keys: tl.tensor,
    answers: tl.tensor,
    ceiling: tl.tensor,
    row_logsumexp: tl.tensor,
    row_slope: tl.tensor,
    row_constant: tl.tensor,
    row_factor: tl.tensor,
    label_slope: tl.tensor,
    column_logsumexp: tl.tensor,
    column_slope: tl.tensor,
    row_share: tl.tensor,
    column_share: tl.tensor,
    num_anchors: tl.tensor,
    num_candidates: tl.tensor,
    depth_end: tl.tensor,
    num_labels: tl.tensor,
    num_relevant: tl.tensor,
    num_answers: tl.tensor,
    num_sizes: tl.tensor,
    anchor_stride: tl.tensor,
    candidate_stride: tl.tensor,
    slopes_stride: tl.tensor,
    guarded: tl.constexpr,
    has_columns: tl.constexpr,
    nested: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
    block_depth: tl.constexpr,
    precision: tl.constexpr,
) -> None:
    """Store the slopes of one tile, times the row's factor, in ``slopes``, ``[sizes, anchors, stride]``.

    Labels are no negatives: whatever the exponential says of them is overwritten by their slope (``softmax -
    1`` of a plain InfoNCE), which comes ready from the caller, so that rounding the tile to bfloat16 loses
    nothing of a gradient that is small because the model is good. Columns between the last candidate and the
    stride become 0, so that stores are 16 bytes wide. ``guarded`` and ``nested`` as in the forward kernel; the
    latter leaves the sum of the slopes of each size and all larger ones, because that is what a coordinate
    learns from, and stores the sums of slope times product over each row and column of the tile.
    """
    row_block, column_block = tile_of_program(
        num_anchors, num_candidates, block_rows, block_columns
    )
    rows = row_block * block_rows + tl.arange(0, block_rows)
    columns = column_block * block_columns + tl.arange(0, block_columns)
    row_inside, column_inside = rows < num_anchors, columns < num_candidates
    column_blocks = tl.cdiv(num_candidates, block_columns)
    target = slopes + rows[:, None].to(tl.int64) * slopes_stride + columns[None, :]
    stored = row_inside[:, None] & (columns < slopes_stride)[None, :]
    size_stride = num_anchors.to(tl.int64) * slopes_stride
    products = tl.zeros([block_rows, block_columns], tl.float32)
    for size in range(num_sizes if nested else 1):
        begin, end = 0, depth_end
        if nested:
            begin = tl.multiple_of(tl.load(bounds + size), 16)
            end = tl.multiple_of(tl.load(bounds + size + 1), 16)
        products = add_products(
            products,
            anchor,
            candidate,
            rows,
            columns,
            row_inside,
            column_inside,
            anchor_stride,
            candidate_stride,
            begin,
            end,
            block_depth,
            precision,
        )
        scores = negatives_only(
            products,
            rows,
            columns,
            row_inside,
            column_inside,
            relevant,
            candidate_keys,
            anchor_keys,
            answers,
            num_relevant,
            num_answers,
            guarded,
        )
        place = size * num_anchors + rows
        if guarded:
            limit = tl.load(ceiling + rows, mask=row_inside, other=float("inf"))
            scores = tl.where(scores > limit[:, None], float("-inf"), scores)
        scale = tl.load(log2_scale + place, mask=row_inside, other=1.0)
        scores *= scale[:, None]
        if nested:
            factors = candidate_scale + size * num_candidates + columns
            beside = tl.load(factors, mask=column_inside, other=1.0)
            scores *= beside[None, :]
        log_sum = tl.load(row_logsumexp + place, mask=row_inside, other=float("inf"))
        slope = tl.load(row_slope + place, mask=row_inside, other=0.0)
        found = tl.exp2(scores - log_sum[:, None]) * slope[:, None]
        if has_columns:
            beneath = tl.load(column_logsumexp + columns, mask=column_inside, other=float("inf"))
            along = tl.load(column_slope + columns, mask=column_inside, other=0.0)
            found += tl.exp2(scores - beneath[None, :]) * along[None, :]
        if guarded:
            constant = tl.load(row_constant + rows, mask=row_inside, other=0.0)
            found = tl.where(scores == float("-inf"), found, found + constant[:, None])
        for listed in range(num_labels):
            label = tl.load(labels + rows * num_labels + listed, mask=row_inside, other=-1)
            exact = tl.load(label_slope + place * num_labels + listed, mask=row_inside, other=0.0)
            found = tl.where(columns[None, :] == label[:, None], exact[:, None], found)
        found *= tl.load(row_factor + place, mask=row_inside, other=0.0)[:, None]
        if nested:
            found *= beside[None, :]
            share = found * products
            partial = (size * column_blocks + column_block).to(tl.int64) * num_anchors + rows
            tl.store(row_share + partial, tl.sum(share, 1), mask=row_inside)
            row_blocks = tl.cdiv(num_anchors, block_rows)
            below = (size * row_blocks + row_block).to(tl.int64) * num_candidates + columns
            tl.store(column_share + below, tl.sum(share, 0), mask=column_inside)
        tl.store(target + size * size_stride, found.to(slopes.dtype.element_ty), mask=stored)
    if nested:
        tl.debug_barrier()  # what other threads stored is read below
        total = tl.zeros([block_rows, block_columns], tl.float32)
        for back in range(num_sizes):
            entry = target + (num_sizes - 1 - back) * size_stride
            total += tl.load(entry, mask=stored, other=0.0).to(tl.float32)
            tl.store(entry, total.to(slopes.dtype.element_ty), mask=stored)
