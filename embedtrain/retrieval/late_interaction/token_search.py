r"""Search over single tokens with faiss: candidates for exact scores, or scores of their own (XTR).

Each query token retrieves ``k'`` document tokens. A document of which query token i retrieved something
gets the best of it, any other document that was retrieved by some token gets the score ``m_i`` of the last
token that i retrieved, which bounds what it could have got:

$$f'(q, d) = \frac{1}{n} \sum_i \begin{cases}
\max_{j \in d\ \text{retrieved}} \langle q_i, d_j \rangle & \text{if any} \\ m_i & \text{else}
\end{cases}$$

With all tokens retrieved this is MaxSim divided by the number n of query tokens.

Source: Khattab and Zaharia (2020), https://arxiv.org/abs/2004.12832 (candidates); Lee et al. (2023),
https://arxiv.org/abs/2304.01982 (XTR).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Int64

from embedtrain.arrays import place_array
from embedtrain.errors import UserError
from embedtrain.retrieval.dense.exact import SearchResult, search_exact
from embedtrain.retrieval.dense.faiss_index import (
    Index,
    build_index,
    index_bytes,
    load_index,
    save_index,
    search_index,
)
from embedtrain.retrieval.index_folder import (
    new_folder,
    read_array,
    read_manifest,
    read_vectors,
    write_manifest,
    write_vectors,
)
from embedtrain.retrieval.late_interaction.exact import (
    check_documents,
    check_inexact,
    check_wanted,
    cut_blocks,
)
from embedtrain.retrieval.late_interaction.rerank import CandidateIndex
from embedtrain.section import Count, Section
from embedtrain.types import TokenVectors

Lengths = Int64[np.ndarray, " documents"]

HITS_AT_ONCE = 2**22
"""Retrieved tokens in memory at once (about 100 MiB)."""
FAISS_FILE = "tokens.faiss"


class TokenSearch(Section):
    """Search document tokens with faiss and score the documents that they belong to exactly.

    Where there are ``cls`` vectors, the best documents by these alone are candidates as well.
    """

    name: Literal["tokens"] = "tokens"
    factory: str = "Flat"
    """The faiss index of the tokens: ``Flat``, ``SQ8``, ``IVF4096,PQ32x8`` ..."""
    parameters: str = ""
    """How the faiss index searches: ``nprobe=32``."""
    num_tokens: Count = 256
    """Document tokens retrieved for each query token."""
    num_candidates: Count = 200
    """Documents scored exactly for each query: those with the best XTR scores."""
    seed: int = 0

    def build(self, documents: TokenVectors, device: torch.device | str = "cpu") -> "TokenIndex":
        """Index every token of the documents."""
        index = _index_tokens(documents, self.factory, self.parameters, self.seed)
        return TokenIndex(documents, index, self.num_candidates, device, self.num_tokens)


class XtrSearch(Section):
    """Score documents by the tokens that faiss retrieves: no document is gathered, none is kept.

    Meant for models trained with the XTR objective: a plain late-interaction model loses much quality.
    """

    name: Literal["xtr"] = "xtr"
    factory: str = "Flat"
    """The faiss index of the tokens; scores are those of the index, quantised where it is."""
    parameters: str = ""
    """How the faiss index searches: ``nprobe=32``."""
    num_tokens: Count = 10_000
    """k', document tokens retrieved for each query token; 40,000 in the paper, for millions of texts."""
    seed: int = 0

    def build(self, documents: TokenVectors, device: torch.device | str = "cpu") -> "XtrIndex":
        """Index every token of the documents; ``device`` is not used, since faiss searches."""
        del device
        if documents.cls is not None:
            raise UserError(
                "xtr", "has no place for cls vectors", cure="Search with exact, fde or tokens"
            )
        index = _index_tokens(documents, self.factory, self.parameters, self.seed)
        return XtrIndex(documents.lengths, index, self.num_tokens)


@dataclass(frozen=True)
class TokenIndex(CandidateIndex):
    """Tokens in a faiss index, which propose documents for exact scores."""

    num_tokens: int
    kind: Literal["tokens"] = "tokens"

    def propose(  # noqa: D102
        self, queries: TokenVectors, wanted: int
    ) -> Int64[np.ndarray, "queries _"]:
        lengths = self.documents.lengths
        found = search_by_tokens(self.index, lengths, queries, self.num_tokens, wanted)
        candidates = found.indices
        if queries.cls is not None and self.documents.cls is not None:
            by_cls = search_exact(queries.cls, self.documents.cls, wanted, device=self.device)
            candidates = np.hstack([candidates, by_cls.indices])
        return candidates

    def save(self, folder: Path) -> None:
        """Write the faiss index and the vectors."""
        with new_folder(folder) as partial:
            write_vectors(partial, self.documents)
            save_index(self.index, partial / FAISS_FILE)
            content = {"num_tokens": self.num_tokens, "num_candidates": self.num_candidates}
            write_manifest(partial, self.kind, content)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "TokenIndex":
        """Map a saved index into memory."""
        manifest = read_manifest(folder, "tokens", "num_tokens", "num_candidates")
        documents = check_documents(read_vectors(folder, exact_match=False))
        index = load_index(folder / FAISS_FILE)
        return cls(documents, index, manifest["num_candidates"], device, manifest["num_tokens"])


@dataclass(frozen=True)
class XtrIndex:
    """Tokens in a faiss index, whose scores are all that a document is judged by."""

    lengths: Lengths
    index: Index
    num_tokens: int
    kind: Literal["xtr"] = "xtr"

    @property
    def num_bytes(self) -> int:
        """Bytes of the faiss index and of the documents' lengths."""
        return index_bytes(self.index) + self.lengths.nbytes

    def search(self, queries: TokenVectors, num_results: int) -> SearchResult:
        """Return the documents with the best XTR scores of those of which a token was retrieved."""
        check_wanted(queries, num_results)
        return search_by_tokens(self.index, self.lengths, queries, self.num_tokens, num_results)

    def save(self, folder: Path) -> None:
        """Write the faiss index and the documents' lengths."""
        with new_folder(folder) as partial:
            place_array(partial / "lengths.npy", self.lengths)
            save_index(self.index, partial / FAISS_FILE)
            write_manifest(partial, self.kind, {"num_tokens": self.num_tokens})

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "XtrIndex":
        """Read a saved index; ``device`` is not used, since faiss searches."""
        del device
        manifest = read_manifest(folder, "xtr", "num_tokens")
        lengths = read_array(folder / "lengths.npy")
        return cls(lengths, load_index(folder / FAISS_FILE), manifest["num_tokens"])


def search_by_tokens(
    index: Index, lengths: Lengths, queries: TokenVectors, num_tokens: int, num_results: int
) -> SearchResult:
    """Rank documents by the score with imputation above; those without a retrieved token stay away.

    Equal scores are ordered by the lower document index. A query token that retrieves nothing, which
    some faiss indexes allow, adds 0 to every document. The index holds the tokens of all documents in
    their order; each query token retrieves ``num_tokens``.
    """
    result = SearchResult.empty(len(queries), min(num_results, len(lengths)))
    found = _documents_of_hits(index, np.cumsum(lengths), queries, num_tokens)
    for number, (documents, hits) in enumerate(found):
        chosen, imputed = _impute(documents, hits)
        order = np.lexsort((chosen, -imputed))[:num_results]
        result.indices[number, : len(order)] = chosen[order]
        result.scores[number, : len(order)] = imputed[order]
    return result


def _index_tokens(documents: TokenVectors, factory: str, parameters: str, seed: int) -> Index:
    check_inexact(documents, "tokens")
    return build_index(documents.values, factory, parameters=parameters, seed=seed)


def _documents_of_hits(
    index: Index, ends: Lengths, queries: TokenVectors, num_tokens: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each query, the document (-1: none) and the score of every retrieved token, best first."""
    for start, stop in cut_blocks(queries.lengths, max(1, HITS_AT_ONCE // num_tokens)):
        block = queries.part(start, stop)
        hits = search_index(index, block.values, num_tokens)
        documents = np.where(
            hits.indices < 0, -1, np.searchsorted(ends, hits.indices, side="right")
        )
        limits = np.cumsum(block.lengths)[:-1]
        yield from zip(np.split(documents, limits), np.split(hits.scores, limits), strict=True)


def _impute(
    documents: Int64[np.ndarray, "query_tokens retrieved"],
    scores: Float32[np.ndarray, "query_tokens retrieved"],
) -> tuple[Int64[np.ndarray, " found"], Float32[np.ndarray, " found"]]:
    """Score each document of which some token was retrieved."""
    real = documents >= 0
    last = np.where(real, scores, np.inf).min(axis=1, initial=np.inf)
    last[np.isinf(last)] = 0
    chosen, columns = np.unique(documents[real], return_inverse=True)
    best = np.tile(last[:, None], len(chosen))
    np.maximum.at(best, (real.nonzero()[0], columns), scores[real])
    if not len(best):  # a query without tokens has retrieved nothing
        return chosen, np.zeros(0, dtype=np.float32)
    return chosen, best.mean(axis=0).astype(np.float32)
