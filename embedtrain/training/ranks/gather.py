"""Other ranks: the only file that talks to them.

Each rank keeps its own queries and sees the documents of all ranks, its own first: so columns and owners
of its own rows stay what they were, and no objective needs to know on which rank it runs. A loss is the
mean over own queries; the backward pass sums the ranks' gradients of each document (one reduce-scatter), and
the average over ranks that DDP and ZeRO take makes it the gradient of the one big batch. Ranks hold as
many queries each; else the loss of each would have to be weighed by its share of them.

Source: the scaling was derived and checked against one process, also for the variants that are wrong;
without a process group every function here is the identity.
"""

from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.autograd.function import once_differentiable

from embedtrain.code_types import SparseCode
from embedtrain.types import (
    AllQueries,
    Embeddings,
    RetrievalOutputs,
    TokenEmbeddings,
)

# torch 2.13 renamed these and warns of the old names; drop the getattr when it is the oldest supported.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor

ALIGNMENT = 16
"""Bytes to which each tensor of a packed message is rounded up."""


def is_distributed() -> bool:
    """Whether there are other ranks."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gather_outputs(outputs: RetrievalOutputs, *, with_queries: bool = False) -> RetrievalOutputs:
    """Let this rank's queries meet the documents of all ranks, own first.

    Embeddings, ids, owners and teacher scores travel in one all-gather (after one of a few numbers per
    rank, because ranks may hold different numbers of documents and tokens); the gradients return in one
    reduce-scatter. Positives of own queries keep their columns; owners of other ranks' documents follow the
    own queries. The vectors that ColBERTer adds to each text travel in a second pair. ``with_queries``
    brings the queries of all ranks as well, at the price of another pair.
    """
    if not is_distributed() or outputs.reads_pairs:  # pairs are compared within a query
        return outputs
    relevance, device = outputs.relevance, outputs.relevance.owners.device
    sizes = _sizes(outputs.document, len(outputs.query))
    numbers = [relevance.document_ids, relevance.owners]
    guided = relevance.document_guide_ids
    if guided is not None:
        numbers.append(guided)
    if relevance.teacher_scores is not None:
        numbers.append(relevance.teacher_scores.double().view(torch.int64))
    document, columns = _gather_texts(outputs.document, torch.stack(numbers, 1), sizes)
    document_ids, owners, *further = columns.unbind(1)
    num_documents, _, num_queries = _own_first(sizes).unbind(1)
    before = (num_queries.cumsum(0) - num_queries).repeat_interleave(num_documents)
    owners = torch.where(
        owners < 0, owners, owners + before
    )  # what no query brought has none here either
    scores = relevance.teacher_scores
    if scores is not None:
        scores = further[-1].contiguous().view(torch.float64).to(device, scores.dtype)
    everyone = gather_queries(outputs) if with_queries else None
    relevance = replace(
        relevance,
        document_ids=document_ids,
        owners=owners,
        teacher_scores=scores,
        document_guide_ids=None if guided is None else further[0].contiguous(),
    )
    return replace(outputs, document=document, relevance=relevance, all_queries=everyone)


def gather_queries(outputs: RetrievalOutputs) -> AllQueries:
    """Bring the queries of all ranks together, own first, with gradient.

    For directions whose candidates are queries; ``outputs`` are this rank's, before they are gathered.
    """
    query, relevance = outputs.query, outputs.relevance
    known = relevance.answers
    if not is_distributed():
        return AllQueries(query, relevance.query_ids, known, relevance.query_guide_ids)
    sizes = _sizes(query, known.shape[1])
    widest = int(sizes[:, 2].max())
    known = torch.nn.functional.pad(known, (0, widest - known.shape[1]), value=-1)
    guided = relevance.query_guide_ids
    read = relevance.query_ids if guided is None else guided
    numbers = torch.cat([relevance.query_ids[:, None], read[:, None], known], 1)
    all_query, columns = _gather_texts(query, numbers, sizes)
    ids, read, known = columns[:, 0], columns[:, 1], columns[:, 2:]
    return AllQueries(
        all_query,
        ids.contiguous(),
        known.contiguous(),
        None if guided is None else read.contiguous(),
    )


def gather_code(code: SparseCode) -> SparseCode:
    """Bring the dense vectors of all ranks together, own first, with gradient.

    A loss of them is the same on every rank; weighed by each rank's share of the queries as everywhere, the average
    over ranks makes its gradient that of the one big batch.
    """
    if not is_distributed():
        return code
    return replace(code, query=gather_vectors(code.query), document=gather_vectors(code.document))


def gather_vectors(vectors: Float[Tensor, "texts dim"]) -> Float[Tensor, "all_texts dim"]:
    """Bring vectors of all ranks together, own first, with gradient."""
    if not is_distributed():
        return vectors
    nothing = torch.empty(len(vectors), 0, dtype=torch.int64, device=vectors.device)
    gathered, _ = _gather_texts(vectors, nothing, _sizes(vectors, 0))
    assert isinstance(gathered, Tensor)
    return gathered


def _sizes(embeddings: Embeddings, further: int) -> Int64[Tensor, "ranks 3"]:
    """Gather each rank's number of texts, of vectors, and one more number."""
    tokens = embeddings.tokens if isinstance(embeddings, TokenEmbeddings) else embeddings
    return gather_numbers([len(embeddings), len(tokens), further], tokens.device)


def _gather_texts(
    embeddings: Embeddings, numbers: Int64[Tensor, "texts numbers"], sizes: Int64[Tensor, "ranks 3"]
) -> tuple[Embeddings, Int64[Tensor, "all_texts numbers"]]:
    """Gather embeddings of either kind and the numbers of their texts."""
    if isinstance(embeddings, Tensor):
        return _gather(embeddings, numbers, sizes[:, 0].tolist())
    texts = torch.arange(len(embeddings), device=numbers.device)
    text = texts.repeat_interleave(embeddings.lengths)
    ids = torch.full_like(text, -1) if embeddings.ids is None else embeddings.ids
    # Numbers of texts travel beside each of their tokens: a few bytes more, and no second message.
    beside = torch.cat([text[:, None], ids[:, None], numbers[text]], 1)
    tokens, columns = _gather(embeddings.tokens, beside, sizes[:, 1].tolist())
    num_texts, num_tokens, _ = _own_first(sizes).unbind(1)
    first_text = (num_texts.cumsum(0) - num_texts).repeat_interleave(num_tokens)
    lengths = torch.bincount(columns[:, 0] + first_text, minlength=int(num_texts.sum()))
    assert int(lengths.min()) > 0, "every text has a vector"
    cls = embeddings.cls
    if cls is not None:
        cls, _ = _gather(cls, texts[:, None], sizes[:, 0].tolist())
    gathered = TokenEmbeddings(
        tokens,
        lengths,
        None if embeddings.ids is None else columns[:, 1].contiguous(),
        cls,
        embeddings.exact_match,
    )
    return gathered, columns[lengths.cumsum(0) - lengths, 2:]


def gather_numbers(numbers: list[int], device: torch.device) -> Int64[Tensor, "ranks numbers"]:
    """Return a few numbers of every rank."""
    own = torch.tensor(numbers, dtype=torch.int64, device=device)
    everyone = own.new_empty(dist.get_world_size() * len(numbers))
    _all_gather(everyone, own)
    return everyone.view(-1, len(numbers))


def _own_first(by_rank: Tensor) -> Tensor:
    return by_rank.roll(-dist.get_rank(), 0)


def _gather(
    rows: Float[Tensor, "rows dim"], numbers: Int64[Tensor, "rows numbers"], sizes: list[int]
) -> tuple[Float[Tensor, "all_rows dim"], Int64[Tensor, "all_rows numbers"]]:
    gathered: tuple[Tensor, Tensor] = _GatherRows.apply(rows, numbers, sizes)  # type: ignore[no-untyped-call]
    return gathered


class _GatherRows(torch.autograd.Function):
    """All-gather of embeddings and numbers as bytes; the backward pass is one reduce-scatter."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch documents no type
        rows: Tensor,
        numbers: Tensor,
        sizes: list[int],
    ) -> tuple[Tensor, Tensor]:
        ctx.sizes = sizes
        own = _pack([numbers, rows], max(sizes))
        everyone = own.new_empty(len(sizes), len(own))
        _all_gather(everyone.view(-1), own)
        order = _own_first(torch.arange(len(sizes))).tolist()
        parts = [
            _unpack(everyone[rank], [numbers, rows], max(sizes), sizes[rank]) for rank in order
        ]
        all_numbers, all_rows = (torch.cat(part) for part in zip(*parts, strict=True))
        ctx.mark_non_differentiable(all_numbers)
        return all_rows, all_numbers

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401
        gradient: Tensor,
        _: Tensor,
    ) -> tuple[Tensor, None, None]:
        sizes, rank = ctx.sizes, dist.get_rank()
        own_first = torch.split(gradient, [*sizes[rank:], *sizes[:rank]])
        # Added up in float32 at least, whatever the rows have.
        wide = torch.promote_types(gradient.dtype, torch.float32)
        by_rank = gradient.new_zeros(len(sizes), max(sizes), gradient.shape[1], dtype=wide)
        for place, part in enumerate(own_first):
            by_rank[(rank + place) % len(sizes), : len(part)] = part
        own = torch.empty_like(by_rank[0])
        _reduce_scatter(own, by_rank.flatten(0, 1))
        return own[: sizes[rank]].to(gradient.dtype), None, None


def _pack(tensors: list[Tensor], most: int) -> UInt8[Tensor, " bytes"]:
    """Lay tensors with as many rows each behind one another as bytes, with room for ``most`` rows."""
    packed = tensors[0].new_empty(_spans(tensors, most)[-1].stop, dtype=torch.uint8)
    for tensor, room in zip(tensors, _unpack(packed, tensors, most, len(tensors[0])), strict=True):
        room.copy_(tensor)
    return packed


def _unpack(
    packed: UInt8[Tensor, " bytes"], like: list[Tensor], most: int, rows: int
) -> list[Tensor]:
    """Return views of packed tensors of the types and widths of ``like``, ``rows`` rows each."""
    return [
        packed[span][: most * _row_bytes(tensor)]
        .view(tensor.dtype)
        .view(most, *tensor.shape[1:])[:rows]
        for tensor, span in zip(like, _spans(like, most), strict=True)
    ]


def _spans(tensors: list[Tensor], most: int) -> list[slice]:
    ends = list(accumulate(-(-most * _row_bytes(t) // ALIGNMENT) * ALIGNMENT for t in tensors))
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _row_bytes(tensor: Tensor) -> int:
    return tensor.shape[1:].numel() * tensor.element_size()
