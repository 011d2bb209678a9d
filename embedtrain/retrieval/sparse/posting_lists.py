r"""Inverted lists: for each word the documents that have it, and its weight in them.

$$s(q, d) = \sum_{v \in q} q_v d_v$$

A query touches the lists of its own words and nothing else. A document that shares no word with it, or scores 0 or
less, was not found: places without a result hold ``-1`` and ``-inf``. So a query without words finds nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int32, Int64, UInt8
from torch import Tensor

from embedtrain.arrays import place_array
from embedtrain.errors import UserError
from embedtrain.retrieval.dense.exact import SearchResult, best_columns
from embedtrain.retrieval.index_folder import read_array
from embedtrain.sparse_vectors import SparseVectors

LEVELS = 255
ARRAYS = ("weights", "rows", "starts")


@dataclass(frozen=True)
class PostingLists:
    """The entries of all documents, word behind word; those of a word by ascending row of its document.

    ``weights`` are floats, or bytes that stand for ``step`` times as much.
    """

    weights: Float32[np.ndarray, " postings"] | UInt8[np.ndarray, " postings"]
    rows: Int32[np.ndarray, " postings"]
    starts: Int64[np.ndarray, " words_and_one"]
    num_documents: int
    step: float = 1.0

    @classmethod
    def of(cls, documents: SparseVectors) -> "PostingLists":
        """Turn documents into lists of their words."""
        by_word = documents.matrix().tocsc()
        weights = np.asarray(by_word.data, dtype=np.float32)
        rows = np.asarray(by_word.indices, dtype=np.int32)
        starts = np.asarray(by_word.indptr, dtype=np.int64)
        return cls(weights, rows, starts, len(documents))

    @property
    def num_bytes(self) -> int:
        """Bytes of the three arrays."""
        return self.weights.nbytes + self.rows.nbytes + self.starts.nbytes

    @property
    def lengths(self) -> Int64[np.ndarray, " words"]:
        """The number of documents that have each word."""
        return np.diff(self.starts)

    def in_bytes(self) -> "PostingLists":
        """Round each weight to one of 255 multiples of one step; entries that become 0 are left out.

        One step for all words keeps scores comparable; it is 1/255 of the largest weight.
        """
        codes, step = round_to_bytes(self.weights)
        kept = np.flatnonzero(codes)
        codes, starts = codes[kept], np.searchsorted(kept, self.starts)
        return PostingLists(codes, self.rows[kept], starts, self.num_documents, step)

    def touched(self, queries: SparseVectors) -> Int64[np.ndarray, " queries"]:
        """Count the postings that each query reads."""
        counts = np.concatenate([np.zeros(1, np.int64), self.lengths[queries.indices].cumsum()])
        return np.diff(counts[queries.offsets])

    def search(self, queries: SparseVectors, num_results: int) -> SearchResult:
        """Return the documents of the largest scores, in float32; equal ones by lower row.

        Weights are added word by word in ascending order, so scores depend on no other query or document.
        """
        check_search(queries, len(self.starts) - 1, num_results)
        result = SearchResult.empty(len(queries), min(num_results, self.num_documents))
        for number, scores in enumerate(self._scores(queries)):
            best = best_columns(scores[None], num_results)
            found = int((best.scores[0] > 0).sum())
            result.indices[number, :found] = best.indices[0, :found].numpy()
            result.scores[number, :found] = best.scores[0, :found].numpy()
        return result

    def _scores(self, queries: SparseVectors) -> Iterator[Float32[Tensor, " documents"]]:
        """Yield the scores of all documents for each query, in the same memory each time."""
        scores = torch.zeros(self.num_documents)
        for number in range(len(queries)):
            scores.zero_()
            entries = slice(*queries.offsets[number : number + 2].tolist())
            words, factors = queries.indices[entries], queries.values[entries]
            for word, factor in zip(words.tolist(), factors.tolist(), strict=True):
                own = slice(*self.starts[word : word + 2].tolist())
                rows = torch.from_numpy(self.rows[own])
                weights = torch.from_numpy(self.weights[own]).float()
                scores.index_add_(0, rows, weights, alpha=factor * self.step)
            yield scores

    def write(self, folder: Path) -> dict[str, object]:
        """Write the arrays into a folder and return what belongs into its manifest."""
        for name in ARRAYS:
            place_array(folder / f"{name}.npy", getattr(self, name))
        return {"num_documents": self.num_documents, "step": self.step}

    @classmethod
    def read(cls, folder: Path, manifest: dict[str, object]) -> "PostingLists":
        """Map what :meth:`write` wrote into memory.

        Raises:
            UserError: If arrays and manifest do not fit together.
        """
        weights, rows, starts = (read_array(folder / f"{name}.npy", "c") for name in ARRAYS)
        num_documents, step = manifest["num_documents"], manifest["step"]
        if not isinstance(step, int | float) or not step > 0:
            raise UserError(folder, "has no step above 0", got=step, cure="Build the index again")
        if not isinstance(num_documents, int) or rows.max(initial=-1) >= num_documents:
            raise UserError(
                folder, "has postings of more documents than it says", got=num_documents,
                cure="Build the index again",
            )  # fmt: skip
        return cls(weights, rows, starts, num_documents, float(step))


def round_to_bytes(
    weights: Float32[np.ndarray, " entries"],
) -> tuple[UInt8[np.ndarray, " entries"], float]:
    """Return weights as multiples of one step, and the step: 1/255 of the largest."""
    step = float(weights.max(initial=0)) / LEVELS or 1.0
    return np.rint(weights / np.float32(step)).clip(0, LEVELS).astype(np.uint8), step


def check_search(queries: SparseVectors, dim: int, num_results: int) -> None:
    """Refuse a search of queries of another vocabulary, or one for nothing."""
    if len(queries) == 0:
        raise UserError("search", "has no queries", cure="Give at least one of the queries")
    if queries.dim != dim:
        raise UserError(
            "search",
            f"needs vectors of one vocabulary; documents have {dim} words, queries",
            got=queries.dim,
            cure="Encode both with the same model",
        )
    if num_results < 1:
        raise UserError("search", "num_results must be at least 1", got=num_results)


def check_documents(documents: SparseVectors) -> SparseVectors:
    """Refuse no documents, and weights that are no numbers; return the others."""
    if len(documents) == 0:
        raise UserError("index", "has no documents", cure="Give at least one document")
    if not np.isfinite(documents.values).all():
        raise UserError("documents", "hold NaN or infinity", cure="Check the model and its input")
    return documents
