"""MaxSim in tiles: the best document token of every query token, and the gradient through it alone.

Tokens of all texts lie end to end, so holes of a mask and padding cost nothing. A *pair* is one query and
one document to be scored. Kernels are longer than 40 lines because Triton takes no structure as an
argument.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["longest"])
def maxsim_forward(
    query: tl.tensor,
    document: tl.tensor,
    pair_query: tl.tensor,
    pair_document: tl.tensor,
    query_starts: tl.tensor,
    document_starts: tl.tensor,
    scores: tl.tensor,
    winners: tl.tensor,
    longest: tl.tensor,
    query_stride: tl.tensor,
    document_stride: tl.tensor,
    save_winners: tl.constexpr,
    dim: tl.constexpr,
    padded_dim: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
    precision: tl.constexpr,
) -> None:
    """Score one pair; store the winning document token of each query token, ``[pairs, longest]``.

    Document tokens are the rows of the product: the matrix units of sm_90 and sm_100 want 64 rows or more,
    and a query seldom has so many tokens. Ties go to the first token; a NaN never wins.
    """
    pair = tl.program_id(0).to(tl.int64)
    query_text = tl.load(pair_query + pair)
    document_text = tl.load(pair_document + pair)
    query_first = tl.load(query_starts + query_text)
    query_last = tl.load(query_starts + query_text + 1)
    document_first = tl.load(document_starts + document_text)
    document_last = tl.load(document_starts + document_text + 1)
    places = tl.arange(0, padded_dim)
    score = 0.0
    for begin in range(query_first, query_last, block_columns):
        columns = begin + tl.arange(0, block_columns)
        column_inside = columns < query_last
        right = tl.load(
            query + columns[None, :].to(tl.int64) * query_stride + places[:, None],
            mask=column_inside[None, :] & (places < dim)[:, None],
            other=0.0,
        )
        best = tl.full([block_columns], float("-inf"), tl.float32)
        winner = tl.full([block_columns], -1, tl.int32)
        for start in range(document_first, document_last, block_rows):
            rows = start + tl.arange(0, block_rows)
            row_inside = rows < document_last
            left = tl.load(
                document + rows[:, None].to(tl.int64) * document_stride + places[None, :],
                mask=row_inside[:, None] & (places < dim)[None, :],
                other=0.0,
            )
            similarity = tl.dot(left, right, input_precision=precision)
            similarity = tl.where(row_inside[:, None], similarity, float("-inf"))
            value, position = tl.max(
                similarity, 0, return_indices=True, return_indices_tie_break_left=True
            )
            better = value > best
            winner = tl.where(better, position + start, winner)
            best = tl.where(better, value, best)
        score += tl.sum(tl.where(column_inside, best, 0.0))
        if save_winners:
            entries = pair * longest + (columns - query_first)
            tl.store(winners + entries, winner, mask=column_inside)
    tl.store(scores + pair, score)


@triton.jit(do_not_specialize=["longest"])
def maxsim_backward(
    source: tl.tensor,
    out: tl.tensor,
    gradient: tl.tensor,
    winners: tl.tensor,
    order: tl.tensor,
    pointers: tl.tensor,
    text_of_row: tl.tensor,
    query_starts: tl.tensor,
    pair_query: tl.tensor,
    longest: tl.tensor,
    source_stride: tl.tensor,
    own_queries: tl.constexpr,
    dim: tl.constexpr,
    padded_dim: tl.constexpr,
    block_rows: tl.constexpr,
) -> None:
    """Sum what reaches one owned token: ``out[row] = sum of gradient[pair] * source[other token]``.

    Queries own: ``order`` holds the pairs of each query, cut by ``pointers`` at the queries, and the other
    token is the winner. Documents own: ``order`` holds the entries ``pair * longest + query token`` sorted
    by the token that won, cut at the tokens, and the other token is the query's.
    """
    row = tl.program_id(0).to(tl.int64)
    places = tl.arange(0, padded_dim)
    if own_queries:
        text = tl.load(text_of_row + row)
        token = row - tl.load(query_starts + text)
    else:
        text = row
    first = tl.load(pointers + text)
    last = tl.load(pointers + text + 1)
    total = tl.zeros([padded_dim], tl.float32)
    for begin in range(first, last, block_rows):
        steps = begin + tl.arange(0, block_rows)
        inside = steps < last
        listed = tl.load(order + steps, mask=inside, other=0)
        if own_queries:
            pair = listed
            other = tl.load(winners + pair * longest + token, mask=inside, other=-1)
            inside &= other >= 0
        else:
            pair = listed // longest
            starts = tl.load(query_starts + tl.load(pair_query + pair, mask=inside, other=0))
            other = starts + listed % longest
        weight = tl.load(gradient + pair, mask=inside, other=0.0)
        values = tl.load(
            source + other[:, None].to(tl.int64) * source_stride + places[None, :],
            mask=inside[:, None] & (places < dim)[None, :],
            other=0.0,
        )
        total += tl.sum(values.to(tl.float32) * weight[:, None], 0)
    tl.store(out + row * dim + places, total.to(out.dtype.element_ty), mask=places < dim)
