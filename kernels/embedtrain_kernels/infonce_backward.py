"""InfoNCE backward: every program owns some embeddings, streams the other side and writes its rows once.

Nothing is atomic and no program writes where another writes, so a gradient is bitwise the same on every
run. Kernels are longer than 40 lines because Triton takes no structure as an argument: most of it is the
parameter list.
"""

import triton
import triton.language as tl

from embedtrain_kernels.tiles import answers


@triton.jit
def score_slopes(
    similarity: tl.tensor,
    queries: tl.tensor,
    documents: tl.tensor,
    log2_scale: tl.tensor,
    labels: tl.tensor,
    relevant: tl.tensor,
    document_ids: tl.tensor,
    ceiling: tl.tensor,
    row_logsumexp: tl.tensor,
    row_slope: tl.tensor,
    column_logsumexp: tl.tensor,
    column_slope: tl.tensor,
    label_slope: tl.tensor,
    num_queries: tl.tensor,
    num_documents: tl.tensor,
    num_labels: tl.constexpr,
    num_relevant: tl.constexpr,
    has_ceiling: tl.constexpr,
    has_columns: tl.constexpr,
) -> tl.tensor:
    """The slope of the loss along every score of a tile, in float32.

    Labels are no negatives: whatever the exponential says of them is overwritten by their slope (``softmax -
    1`` of a plain InfoNCE), which comes ready from the caller, so that rounding the tile to bfloat16 loses
    nothing of a gradient that is small because the model is good.
    """
    query_inside = queries < num_queries
    document_inside = documents < num_documents
    kept = query_inside & document_inside
    if num_relevant > 0:
        kept &= ~answers(
            queries, documents, relevant, document_ids, num_queries, num_documents, num_relevant
        )
    if has_ceiling:
        limit = tl.load(ceiling + queries, mask=query_inside, other=float("inf"))
        kept &= ~(similarity > limit)
    scores = similarity * tl.load(log2_scale + queries, mask=query_inside, other=0.0)
    scores = tl.where(kept, scores, float("-inf"))
    log_sum = tl.load(row_logsumexp + queries, mask=query_inside, other=float("inf"))
    slope = tl.load(row_slope + queries, mask=query_inside, other=0.0)
    slopes = tl.exp2(scores - log_sum) * slope
    if has_columns:
        log_sum = tl.load(column_logsumexp + documents, mask=document_inside, other=float("inf"))
        slope = tl.load(column_slope + documents, mask=document_inside, other=0.0)
        slopes += tl.exp2(scores - log_sum) * slope
    for place in tl.static_range(num_labels):
        index = queries * num_labels + place
        label = tl.load(labels + index, mask=query_inside, other=-1)
        slope = tl.load(label_slope + index, mask=query_inside, other=0.0)
        slopes = tl.where(documents == label, slope, slopes)
    return slopes


@triton.jit(do_not_specialize=["num_own", "num_stream", "stream_per_split"])
def infonce_backward(
    own: tl.tensor,
    stream: tl.tensor,
    out: tl.tensor,
    unit: tl.tensor,
    query_factor: tl.tensor,
    log2_scale: tl.tensor,
    labels: tl.tensor,
    relevant: tl.tensor,
    document_ids: tl.tensor,
    ceiling: tl.tensor,
    row_logsumexp: tl.tensor,
    row_slope: tl.tensor,
    column_logsumexp: tl.tensor,
    column_slope: tl.tensor,
    label_slope: tl.tensor,
    num_own: tl.tensor,
    num_stream: tl.tensor,
    stream_per_split: tl.tensor,
    own_stride: tl.tensor,
    stream_stride: tl.tensor,
    own_queries: tl.constexpr,
    dim: tl.constexpr,
    low: tl.constexpr,
    high: tl.constexpr,
    num_labels: tl.constexpr,
    num_relevant: tl.constexpr,
    has_ceiling: tl.constexpr,
    has_columns: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
    precision: tl.constexpr,
) -> None:
    """Gradient of ``block_rows`` owned embeddings, recomputing the scores against a streamed range.

    ``out`` is ``[splits, own, dim]`` in float32. The axis ``dim`` is cut into two powers of two,
    ``low + high`` (384 = 256 + 128), because padding it to the next one costs registers, shared memory and
    a third of the products. Owned embeddings are the queries (``own_queries``) or the documents.
    """
    rows = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    row_inside = rows < num_own
    low_places = tl.arange(0, low)
    low_inside = low_places < dim
    own_row = own + rows[:, None].to(tl.int64) * own_stride
    own_low = tl.load(
        own_row + low_places[None, :], mask=row_inside[:, None] & low_inside[None, :], other=0.0
    )
    sum_low = tl.zeros([block_rows, low], tl.float32)
    if high > 0:
        high_places = low + tl.arange(0, high)
        high_inside = high_places < dim
        own_high = tl.load(
            own_row + high_places[None, :],
            mask=row_inside[:, None] & high_inside[None, :],
            other=0.0,
        )
        sum_high = tl.zeros([block_rows, high], tl.float32)
    first = tl.program_id(1) * stream_per_split
    last = tl.minimum(first + stream_per_split, num_stream)
    for start in range(first, last, block_columns):
        columns = start + tl.arange(0, block_columns)
        column_inside = columns < num_stream
        stream_row = stream + columns[:, None].to(tl.int64) * stream_stride
        stream_low = tl.load(
            stream_row + low_places[None, :],
            mask=column_inside[:, None] & low_inside[None, :],
            other=0.0,
        )
        similarity = tl.dot(own_low, tl.trans(stream_low), input_precision=precision)
        if high > 0:
            stream_high = tl.load(
                stream_row + high_places[None, :],
                mask=column_inside[:, None] & high_inside[None, :],
                other=0.0,
            )
            similarity = tl.dot(
                own_high, tl.trans(stream_high), similarity, input_precision=precision
            )
        if own_queries:
            queries, documents = rows[:, None], columns[None, :]
            num_queries, num_documents = num_own, num_stream
        else:
            queries, documents = columns[None, :], rows[:, None]
            num_queries, num_documents = num_stream, num_own
        slopes = score_slopes(
            similarity,
            queries,
            documents,
            log2_scale,
            labels,
            relevant,
            document_ids,
            ceiling,
            row_logsumexp,
            row_slope,
            column_logsumexp,
            column_slope,
            label_slope,
            num_queries,
            num_documents,
            num_labels,
            num_relevant,
            has_ceiling,
            has_columns,
        )
        if not own_queries:
            factor = tl.load(query_factor + columns, mask=column_inside, other=0.0)
            slopes *= factor[None, :]
        slopes = slopes.to(stream_low.dtype)
        sum_low = tl.dot(slopes, stream_low, sum_low, input_precision=precision)
        if high > 0:
            sum_high = tl.dot(slopes, stream_high, sum_high, input_precision=precision)
    factor = tl.full([block_rows], 1.0, tl.float32) * tl.load(unit)
    if own_queries:
        factor *= tl.load(query_factor + rows, mask=row_inside, other=0.0)
    place = (tl.program_id(1).to(tl.int64) * num_own + rows)[:, None] * dim
    tl.store(
        out + place + low_places[None, :],
        sum_low * factor[:, None],
        mask=row_inside[:, None] & low_inside[None, :],
    )
    if high > 0:
        tl.store(
            out + place + high_places[None, :],
            sum_high * factor[:, None],
            mask=row_inside[:, None] & high_inside[None, :],
        )
