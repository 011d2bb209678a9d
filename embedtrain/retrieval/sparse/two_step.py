"""Search in two steps: shortened documents and queries propose candidates, which are scored again in full.

Scores are exact for whatever was found. With as many candidates as documents the first step still leaves out what
shares no kept word with the query.

Source: Lassance et al. (2024), https://arxiv.org/abs/2404.13357.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64

from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.index_folder import (
    new_folder,
    read_manifest,
    read_sparse,
    write_manifest,
    write_sparse,
)
from embedtrain.retrieval.sparse.posting_lists import PostingLists, check_documents
from embedtrain.section import Count, Section
from embedtrain.sparse_vectors import SparseVectors


class TwoStepSearch(Section):
    """Find candidates by the heaviest words alone, and score them by all."""

    name: Literal["two_step"] = "two_step"
    document_words: Count = 64
    """Words of a document in the lists of the first step, the heaviest."""
    query_words: Count = 10
    """Words of a query that the first step looks up, the heaviest."""
    num_candidates: Count = 100
    """Documents scored in full, at least as many as results are wanted."""

    def build(self, documents: SparseVectors) -> "TwoStepIndex":
        """Make the lists of shortened documents; the whole ones are kept beside them."""
        short = PostingLists.of(check_documents(documents).heaviest(self.document_words))
        return TwoStepIndex(documents, short, self)


@dataclass(frozen=True)
class TwoStepIndex:
    """Whole documents, and lists of their heaviest words."""

    documents: SparseVectors
    lists: PostingLists
    settings: TwoStepSearch
    kind: Literal["two_step"] = "two_step"

    @property
    def num_bytes(self) -> int:
        """Bytes of the lists and of the whole documents."""
        return self.lists.num_bytes + self.documents.nbytes

    def touched(self, queries: SparseVectors) -> Int64[np.ndarray, " queries"]:
        """Count the postings that each query reads in the first step."""
        return self.lists.touched(queries.heaviest(self.settings.query_words))

    def search(self, queries: SparseVectors, num_results: int) -> SearchResult:
        """Return the best of each query's candidates by exact scores, equal ones by lower row."""
        wanted = max(num_results, self.settings.num_candidates)
        candidates = self.lists.search(queries.heaviest(self.settings.query_words), wanted)
        result = SearchResult.empty(len(queries), min(num_results, len(self.documents)))
        for number, proposed in enumerate(candidates.indices):
            rows = np.sort(proposed[proposed >= 0])
            query = queries.part(number, number + 1).dense()[0]
            scores = self.documents.select(rows).matrix() @ query
            order = np.argsort(-scores, kind="stable")[:num_results]
            result.indices[number, : len(order)] = rows[order]
            result.scores[number, : len(order)] = scores[order]
        return result

    def save(self, folder: Path) -> None:
        """Write lists and documents as ``.npy`` files and a manifest."""
        with new_folder(folder) as partial:
            write_sparse(partial, self.documents)
            content = self.lists.write(partial)
            content |= {"dim": self.documents.dim, "settings": self.settings.model_dump()}
            write_manifest(partial, self.kind, content)

    @classmethod
    def load(cls, folder: Path) -> "TwoStepIndex":
        """Map a saved index into memory."""
        needed = ("num_documents", "step", "dim", "settings")
        manifest = read_manifest(folder, "two_step", *needed)
        settings = TwoStepSearch.model_validate(manifest["settings"])
        documents = read_sparse(folder, manifest["dim"])
        return cls(documents, PostingLists.read(folder, manifest), settings)
