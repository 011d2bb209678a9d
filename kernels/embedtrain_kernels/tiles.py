"""Masks on one tile of scores, shared by several kernels.

``query`` and ``document`` are indices that broadcast against each other to the shape of the tile, in either
orientation: ``[rows, 1]`` and ``[1, columns]`` or the other way round. The same lines therefore serve
kernels that own queries and kernels that own documents.
"""

import triton
import triton.language as tl


@triton.jit
def label_hits(
    query: tl.tensor,
    document: tl.tensor,
    labels: tl.tensor,
    num_queries: tl.tensor,
    num_labels: tl.constexpr,
) -> tl.tensor:
    """Whether the document's column is one of the query's labels; ``-1`` in ``labels`` is no label."""
    inside = query < num_queries
    hits = document == tl.load(labels + query * num_labels, mask=inside, other=-1)
    for place in tl.static_range(1, num_labels):
        hits |= document == tl.load(labels + query * num_labels + place, mask=inside, other=-1)
    return hits


@triton.jit
def answers(
    query: tl.tensor,
    document: tl.tensor,
    relevant: tl.tensor,
    document_ids: tl.tensor,
    num_queries: tl.tensor,
    num_documents: tl.tensor,
    num_relevant: tl.constexpr,
) -> tl.tensor:
    """Whether the document's id is among the query's ``relevant`` ids; ids are dense, at least 0."""
    inside = query < num_queries
    ids = tl.load(document_ids + document, mask=document < num_documents, other=-2)
    found = ids == tl.load(relevant + query * num_relevant, mask=inside, other=-1)
    for place in tl.static_range(1, num_relevant):
        found |= ids == tl.load(relevant + query * num_relevant + place, mask=inside, other=-1)
    return found
