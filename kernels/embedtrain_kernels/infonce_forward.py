"""InfoNCE forward: one pass over the documents with a running maximum; see `infonce.py` for the launches.

Scores are kept in units of log2 (``similarity * inverse_temperature * log2 e``), so that the exponential is
one instruction. Kernels are longer than 40 lines because Triton takes no structure as an argument: most of
it is the parameter list.
"""

import triton
import triton.language as tl

from embedtrain_kernels.tiles import answers, label_hits


@triton.jit(do_not_specialize=["num_queries", "num_documents", "documents_per_split", "num_dims"])
def infonce_forward(
    query: tl.tensor,
    document: tl.tensor,
    log2_scale: tl.tensor,
    labels: tl.tensor,
    relevant: tl.tensor,
    document_ids: tl.tensor,
    ceiling: tl.tensor,
    row_maximum: tl.tensor,
    row_total: tl.tensor,
    row_suspected: tl.tensor,
    column_maximum: tl.tensor,
    column_total: tl.tensor,
    num_queries: tl.tensor,
    num_documents: tl.tensor,
    documents_per_split: tl.tensor,
    num_dims: tl.tensor,
    query_stride: tl.tensor,
    document_stride: tl.tensor,
    dim: tl.constexpr,
    num_labels: tl.constexpr,
    num_relevant: tl.constexpr,
    has_ceiling: tl.constexpr,
    has_columns: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
    block_depth: tl.constexpr,
    precision: tl.constexpr,
) -> None:
    """Store maximum and sum of exponentials of the negatives of ``block_rows`` queries.

    ``row_*`` are ``[splits, queries]``: ``program_id(1)`` takes one range of the documents. With
    ``has_columns`` the same tile of scores also gives maximum and sum over these queries for every
    document: ``column_*`` are ``[row blocks, documents]``. Labels are left out of all of them, so that the
    caller has the hardest negative and adds the positives exactly. ``num_dims`` is ``dim`` as a number of the
    launch: a loop whose end is known is unrolled, and Triton 3.9 then spills registers for the addresses.
    """
    rows = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    depth = tl.arange(0, block_depth)
    row_inside = rows < num_queries
    scale = tl.load(log2_scale + rows, mask=row_inside, other=0.0)
    query_row = query + rows[:, None].to(tl.int64) * query_stride
    maximum = tl.full([block_rows], float("-inf"), tl.float32)
    total = tl.zeros([block_rows], tl.float32)
    if has_ceiling:
        limit = tl.load(ceiling + rows, mask=row_inside, other=float("inf"))
        suspected = tl.zeros([block_rows], tl.int32)
    first = tl.program_id(1) * documents_per_split
    last = tl.minimum(first + documents_per_split, num_documents)
    for start in range(first, last, block_columns):
        columns = start + tl.arange(0, block_columns)
        column_inside = columns < last
        document_row = document + columns[None, :].to(tl.int64) * document_stride
        scores = tl.zeros([block_rows, block_columns], tl.float32)
        for begin in range(0, num_dims, block_depth):
            places = begin + depth
            left = tl.load(
                query_row + places[None, :],
                mask=row_inside[:, None] & (places < dim)[None, :],
                other=0.0,
            )
            right = tl.load(
                document_row + places[:, None],
                mask=column_inside[None, :] & (places < dim)[:, None],
                other=0.0,
            )
            scores = tl.dot(left, right, scores, input_precision=precision)
        kept = row_inside[:, None] & column_inside[None, :]
        kept &= ~label_hits(rows[:, None], columns[None, :], labels, num_queries, num_labels)
        if num_relevant > 0:
            kept &= ~answers(
                rows[:, None],
                columns[None, :],
                relevant,
                document_ids,
                num_queries,
                num_documents,
                num_relevant,
            )
        if has_ceiling:
            above = kept & (scores > limit[:, None])
            suspected += tl.sum(above.to(tl.int32), 1)
            kept &= ~above
        scores = tl.where(kept, scores * scale[:, None], float("-inf"))
        new_maximum = tl.maximum(maximum, tl.max(scores, 1))
        # A row that has no negative yet would compute inf - inf.
        shift = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)
        total = total * tl.exp2(maximum - shift) + tl.sum(tl.exp2(scores - shift[:, None]), 1)
        maximum = new_maximum
        if has_columns:
            highest = tl.max(scores, 0)
            shift = tl.where(highest == float("-inf"), 0.0, highest)
            place = tl.program_id(0).to(tl.int64) * num_documents + columns
            tl.store(column_maximum + place, highest, mask=column_inside)
            sums = tl.sum(tl.exp2(scores - shift[None, :]), 0)
            tl.store(column_total + place, sums, mask=column_inside)
    place = tl.program_id(1).to(tl.int64) * num_queries + rows
    tl.store(row_maximum + place, maximum, mask=row_inside)
    tl.store(row_total + place, total, mask=row_inside)
    if has_ceiling:
        tl.store(row_suspected + place, suspected, mask=row_inside)
