"""Search with several vectors per text: what every index offers, and the exact one.

A query's score of a document is that of :func:`embedtrain.ops.similarity.all_scores`: MaxSim, plus the
inner product of the ``cls`` vectors where there are some, over equal ids only with ``exact_match``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64

from embedtrain.errors import UserError
from embedtrain.ops.similarity import all_scores
from embedtrain.precision import computing
from embedtrain.retrieval.dense.exact import (
    SearchResult,
    best_columns,
    merge_candidates,
    no_candidates,
)
from embedtrain.retrieval.index_folder import (
    new_folder,
    read_manifest,
    read_vectors,
    write_manifest,
    write_vectors,
)
from embedtrain.section import Count, Section
from embedtrain.types import TokenEmbeddings, TokenVectors

BLOCK_TOKENS = 2**16
"""Document tokens in memory at once (32 MiB of float32 at 128 dimensions)."""
BLOCK_DOCUMENTS = 2**12
"""Documents in memory at once, however short they are."""
BLOCK_QUERY_TOKENS = 2**13
"""Query tokens scored at once: with a block of documents at most 128 MiB of float32."""


@runtime_checkable
class LateInteractionIndex(Protocol):
    """A searchable corpus. Results are row numbers of the documents, best first, ties by lower number.

    A result has one column for each document wanted, or for each document if there are fewer; an index
    that finds too few leaves places unused (``-1`` and ``-inf``).
    """

    @property
    def kind(self) -> str:
        """The name under which recipes and folders know this kind of index."""
        ...

    @property
    def num_bytes(self) -> int:
        """Bytes that searching needs in memory or on disk, the vectors for re-ranking included."""
        ...

    def search(self, queries: TokenVectors, num_results: int) -> SearchResult:
        """Return the best documents of each query."""
        ...

    def save(self, folder: Path) -> None:
        """Write the index into a folder, which appears only when complete."""
        ...


@dataclass(frozen=True)
class ExactIndex:
    """Scores every document, block by block; documents may be mapped from a file."""

    documents: TokenVectors
    block_tokens: int = BLOCK_TOKENS
    device: torch.device | str = "cpu"
    kind: Literal["exact"] = "exact"

    @property
    def num_bytes(self) -> int:
        """Bytes of the vectors."""
        return self.documents.nbytes

    def search(self, queries: TokenVectors, num_results: int) -> SearchResult:
        """Return the best documents of each query, in float32.

        Documents are read once; memory grows with queries times results and one block, not with the
        documents. A document without tokens comes last. The order of scores that differ by rounding only
        may depend on ``block_tokens``.
        """
        check_search(queries, self.documents, num_results)
        ranges = cut_blocks(self.documents.lengths, self.block_tokens)
        blocks = (self.documents.part(*some).tensors(self.device) for some in ranges)
        return search_blocks(queries, blocks, num_results, self.device)

    def save(self, folder: Path) -> None:
        """Write the vectors as ``.npy`` files and a manifest."""
        with new_folder(folder) as partial:
            write_vectors(partial, self.documents)
            write_manifest(partial, self.kind, {"exact_match": self.documents.exact_match})

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "ExactIndex":
        """Map a saved index into memory."""
        manifest = read_manifest(folder, "exact", "exact_match")
        return cls(
            check_documents(read_vectors(folder, exact_match=manifest["exact_match"])),
            device=device,
        )


class ExactSearch(Section):
    """Score every document: the truth, and fast enough up to about 100,000 documents."""

    name: Literal["exact"] = "exact"
    block_tokens: Count = BLOCK_TOKENS
    """Document tokens in memory at once."""

    def build(self, documents: TokenVectors, device: torch.device | str = "cpu") -> ExactIndex:
        """Make the index; nothing is computed."""
        return ExactIndex(check_documents(documents), self.block_tokens, device)


def cut_blocks(lengths: Int64[np.ndarray, " texts"], tokens: int) -> Iterator[tuple[int, int]]:
    """Cut texts into ranges of at most ``tokens`` tokens; a longer text is a range of its own."""
    ends = np.cumsum(lengths)
    start = 0
    while start < len(lengths):
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + tokens, side="right"))
        stop = min(max(stop, start + 1), start + BLOCK_DOCUMENTS)
        yield start, min(stop, len(lengths))
        start = stop


def search_blocks(
    queries: TokenVectors,
    blocks: Iterable[TokenEmbeddings],
    num_results: int,
    device: torch.device | str = "cpu",
) -> SearchResult:
    """Keep the best documents of consecutive blocks; indices count through all of them."""
    parts = [
        queries.part(start, stop).tensors(device)
        for start, stop in cut_blocks(queries.lengths, BLOCK_QUERY_TOKENS)
    ]
    best = [no_candidates(len(part), device) for part in parts]
    first = 0
    with torch.inference_mode(), computing("fp32", torch.device(device).type):
        for block in blocks:
            for number, part in enumerate(parts):
                found = best_columns(all_scores(part, block), num_results)
                best[number] = merge_candidates(best[number], found, first, num_results)
            first += len(block)
    return SearchResult.of_blocks(best)


def check_documents(documents: TokenVectors) -> TokenVectors:
    """Refuse vectors that do not fit together; return the others."""
    if len(documents) == 0:
        raise UserError("index", "has no documents", cure="Give at least one document")
    num_tokens = int(documents.lengths.sum())
    for name, array, wanted in (
        ("values", documents.values, num_tokens),
        ("ids", documents.ids, num_tokens),
        ("cls", documents.cls, len(documents)),
    ):
        if array is not None and len(array) != wanted:
            raise UserError(
                "index", f"needs {wanted} rows of {name}", got=len(array), cure="Encode again"
            )
    if documents.exact_match and documents.ids is None:
        raise UserError("index", "needs ids for exact_match", cure="Encode the documents with ids")
    return documents


def check_search(queries: TokenVectors, documents: TokenVectors, num_results: int) -> None:
    """Refuse a search of queries that do not fit the documents, or one for nothing."""
    check_wanted(queries, num_results)
    for what, of_queries, of_documents in (
        ("tokens of one dimension", queries.values.shape[1], documents.values.shape[1]),
        ("cls vectors of one dimension", cls_dim(queries), cls_dim(documents)),
        ("one setting of exact_match", queries.exact_match, documents.exact_match),
    ):
        if of_queries != of_documents:
            raise UserError(
                "search",
                f"needs {what}; documents have {of_documents}, queries",
                got=of_queries,
                cure="Encode both with the same model",
            )


def check_wanted(queries: TokenVectors, num_results: int) -> None:
    """Refuse a search for nothing."""
    if len(queries) == 0:
        raise UserError("search", "has no queries", cure="Give at least one of the queries")
    if num_results < 1:
        raise UserError("search", "num_results must be at least 1", got=num_results)


def check_inexact(documents: TokenVectors, name: str) -> None:
    """Refuse what an index over vectors alone, without their ids, cannot search."""
    check_documents(documents)
    if documents.exact_match:
        cure = "Search with exact, or without exact_match"
        raise UserError(name, "cannot follow exact_match", cure=cure)


def cls_dim(vectors: TokenVectors) -> int:
    """Return the numbers of a text's ``cls`` vector, 0 without one."""
    return 0 if vectors.cls is None else vectors.cls.shape[1]
