"""InfoNCE forward: each program scores one tile and stores what its rows and columns add up to.

Scores are kept in units of log2 (``similarity * inverse_temperature * log2 e``), so that the exponential is
one instruction. Kernels are longer than 40 lines because Triton takes no structure as an argument: most of
it is the parameter list.
"""

import triton
import triton.language as tl

from embedtrain_kernels.tiles import (
    add_products,
    negatives_only,
    tile_of_program,
    without_listed,
)


@triton.jit(
    do_not_specialize=[
        *("num_anchors", "num_candidates", "num_labels", "num_relevant", "num_answers"),
        "num_sizes",
    ]
)
def infonce_forward(
    anchor: tl.tensor,
    candidate: tl.tensor,
    log2_scale: tl.tensor,
    candidate_scale: tl.tensor,
    bounds: tl.tensor,
    labels: tl.tensor,
    relevant: tl.tensor,
    candidate_keys: tl.tensor,
    anchor_keys: tl.tensor,
    answers: tl.tensor,
    ceiling: tl.tensor,
    row_maximum: tl.tensor,
    row_total: tl.tensor,
    row_suspected: tl.tensor,
    row_number: tl.tensor,
    row_logits: tl.tensor,
    column_maximum: tl.tensor,
    column_total: tl.tensor,
    num_anchors: tl.tensor,
    num_candidates: tl.tensor,
    depth_end: tl.tensor,
    num_labels: tl.tensor,
    num_relevant: tl.tensor,
    num_answers: tl.tensor,
    num_sizes: tl.tensor,
    anchor_stride: tl.tensor,
    candidate_stride: tl.tensor,
    guarded: tl.constexpr,
    has_columns: tl.constexpr,
    nested: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
    block_depth: tl.constexpr,
    precision: tl.constexpr,
) -> None:
    """Store maximum and sum of exponentials of the negatives in one tile, by row and (asked) by column.

    ``row_*`` are ``[sizes, column blocks, anchors]``, ``column_*`` ``[row blocks, candidates]``. Labels are
    left out, so that the caller has the hardest negative and adds the positives exactly. ``guarded`` adds
    a ceiling of the similarity, exclusion by the candidates' own lists, and three figures of the rows: how
    many the ceiling left out, how many negatives stay, the sum of their logits. ``nested`` takes the
    coordinates in several steps, from ``bounds[k]`` to ``bounds[k + 1]``, and looks at the scores after each.
    """
    row_block, column_block = tile_of_program(
        num_anchors, num_candidates, block_rows, block_columns
    )
    rows = row_block * block_rows + tl.arange(0, block_rows)
    columns = column_block * block_columns + tl.arange(0, block_columns)
    row_inside, column_inside = rows < num_anchors, columns < num_candidates
    column_blocks = tl.cdiv(num_candidates, block_columns)
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
        scores = without_listed(
            scores, rows[:, None], row_inside[:, None], labels, columns[None, :], num_labels
        )
        partial = (size * column_blocks + column_block).to(tl.int64) * num_anchors + rows
        if guarded:
            limit = tl.load(ceiling + rows, mask=row_inside, other=float("inf"))
            above = scores > limit[:, None]
            tl.store(row_suspected + partial, tl.sum(above.to(tl.int32), 1), mask=row_inside)
            scores = tl.where(above, float("-inf"), scores)
        scale = tl.load(log2_scale + size * num_anchors + rows, mask=row_inside, other=1.0)
        scores *= scale[:, None]
        if nested:
            beside = size * num_candidates + columns
            scores *= tl.load(candidate_scale + beside, mask=column_inside, other=1.0)[None, :]
        highest = tl.max(scores, 1)
        # A row that has no negative here would compute inf - inf.
        shift = tl.where(highest == float("-inf"), 0.0, highest)
        tl.store(row_maximum + partial, highest, mask=row_inside)
        total = tl.sum(tl.exp2(scores - shift[:, None]), 1)
        tl.store(row_total + partial, total, mask=row_inside)
        if guarded:
            kept = scores != float("-inf")
            tl.store(row_number + partial, tl.sum(kept.to(tl.int32), 1), mask=row_inside)
            logits = tl.sum(tl.where(kept, scores, 0.0), 1)
            tl.store(row_logits + partial, logits, mask=row_inside)
        if has_columns:
            peak = tl.max(scores, 0)
            base = tl.where(peak == float("-inf"), 0.0, peak)
            below = row_block.to(tl.int64) * num_candidates + columns
            tl.store(column_maximum + below, peak, mask=column_inside)
            tl.store(
                column_total + below,
                tl.sum(tl.exp2(scores - base[None, :]), 0),
                mask=column_inside,
            )
