r"""Search over vectors that were cut, or stored as bytes or bits; queries stay floats.

The order is: cut, normalise again where the similarity is cosine, then quantise. A byte stands for
$\min_i + (c + \frac12)(\max_i - \min_i) / 255$ of its own dimension, at most $\max_i$, so codes are not multiplied with each
other: a float query meets the values that the codes stand for. Bits find candidates by Hamming distance, which
are scored again by the query's floats against the signs.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import faiss
import numpy as np
import torch
from jaxtyping import Float, Float32, Shaped, UInt8
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.ops.straight_through import LARGEST_CODE, straight_through
from embedtrain.retrieval.dense.exact import SearchResult, resident, search_exact
from embedtrain.retrieval.late_interaction.binary_tokens import (
    BinaryIndex,
    BinarySearch,
    sign_bits,
    unpack_signs,
)
from embedtrain.retrieval.search import search
from embedtrain.retrieval.sparse.exact import ByteListSearch, InvertedSearch
from embedtrain.section import Count, Section
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import Format, TokenVectors

Vectors = Float32[np.ndarray, "_ _"] | TokenVectors | SparseVectors
LONGEST = 1.02
"""A vector of length 1 that was rounded to 16 bits; means of several are shorter."""
STEPS = 255


@runtime_checkable
class CompressedIndex(Protocol):
    """Documents that can be searched, and the bytes that this takes."""

    @property
    def num_bytes(self) -> int:
        """Bytes of what is stored."""
        ...

    def search(self, queries: Any, num_results: int) -> SearchResult:  # noqa: ANN401 - of either kind
        """Return the best documents of each query."""
        ...


class Compression(Section):
    """How vectors are made smaller after the model."""

    dim: Count | None = None
    """Keep the first dimensions only; null keeps all."""
    quantize: Format | Literal["trained"] | None = None
    """Store document vectors as a byte, a bit, or one of three levels per number; ``trained`` stands for what the
    model says, and is replaced once it is known."""
    rescore: Count = 4
    """Candidates per result wanted that ``binary`` scores again; late interaction scores all."""

    def cut(self, vectors: Vectors, *, normalized: bool) -> Vectors:
        """Keep the first dimensions, of length 1 again where they were.

        Raises:
            UserError: If there are fewer dimensions.
        """
        if self.dim is None:
            return vectors
        if isinstance(vectors, SparseVectors):
            cure = "Keep the heaviest words: --index two_step"
            raise UserError("--dim", "cuts numbers that are words here", got=self.dim, cure=cure)
        values = vectors.values if isinstance(vectors, TokenVectors) else vectors
        if self.dim > values.shape[1]:
            raise UserError(
                "--dim", f"is more than the {values.shape[1]} dimensions there are", got=self.dim
            )
        kept = np.array(values[:, : self.dim], dtype=np.float32)
        if normalized:
            kept /= np.linalg.norm(kept, axis=1, keepdims=True).clip(min=np.finfo(np.float32).tiny)
        if not isinstance(vectors, TokenVectors):
            return kept
        return replace(vectors, values=kept)

    def index(self, documents: Vectors, device: torch.device | str = "cpu") -> CompressedIndex:
        """Store cut documents as this says, to be searched on a device; bits are searched on the CPU."""
        if isinstance(documents, TokenVectors):
            return _token_index(documents, self.quantize, device)
        if isinstance(documents, SparseVectors):
            return _sparse_index(documents, self.quantize)
        if self.quantize == "ternary":
            return FloatIndex(_ternary(documents), ternary_bytes(documents), device)
        if self.quantize == "int8":
            return ByteIndex(*quantize_bytes(documents), device)
        if self.quantize == "binary":
            return SignIndex(sign_bits(documents), documents.shape[1], self.rescore)
        return FloatIndex(resident(documents, device), documents.nbytes, device)


@dataclass(frozen=True)
class FloatIndex:
    """Vectors as they are, or the values that bytes stand for: all tokens share one range per dimension."""

    documents: Vectors | Tensor
    num_bytes: int
    """Bytes of what is stored."""
    device: torch.device | str = "cpu"

    def search(self, queries: Vectors, num_results: int) -> SearchResult:
        """Score every document."""
        return search(queries, self.documents, num_results, device=self.device)


@dataclass(frozen=True)
class ByteIndex:
    """A byte per number and the range of each dimension."""

    codes: UInt8[np.ndarray, "documents dim"]
    lowest: Float32[np.ndarray, " dim"]
    step: Float32[np.ndarray, " dim"]
    device: torch.device | str = "cpu"

    @property
    def num_bytes(self) -> int:
        """Bytes of codes and ranges."""
        return self.codes.nbytes + self.lowest.nbytes + self.step.nbytes

    def search(self, queries: Vectors, num_results: int) -> SearchResult:
        """Score every document by the values that its codes stand for."""
        values = dequantize_bytes(self.codes, self.lowest, self.step)
        return search(queries, values, num_results, device=self.device)


@dataclass(frozen=True)
class SignIndex:
    """A bit per number; candidates by Hamming distance, scored again by the query's floats against signs, or a copy."""

    signs: UInt8[np.ndarray, "documents bytes"]
    dim: int
    rescore: int
    copy: Float32[np.ndarray, "documents dim"] | None = None
    """Values that a second, larger form of the documents stands for; None scores against the signs."""
    copy_bytes: int = 0
    """Bytes that the second form takes."""

    @property
    def num_bytes(self) -> int:
        """Bytes of the bits and of the copy."""
        return self.signs.nbytes + self.copy_bytes

    def search(self, queries: Vectors, num_results: int) -> SearchResult:
        """Return the best of each query's candidates; ties by lower index."""
        assert isinstance(queries, np.ndarray)
        index = faiss.IndexBinaryFlat(self.signs.shape[1] * 8)
        index.add(self.signs)
        wanted = min(self.rescore * num_results, len(self.signs))
        _, candidates = index.search(sign_bits(queries), wanted)
        found = [
            self._rescore(query, np.sort(rows), num_results)
            for query, rows in zip(queries, candidates, strict=True)
        ]
        return SearchResult(
            np.stack([indices for indices, _ in found]), np.stack([scores for _, scores in found])
        )

    def _rescore(
        self, query: np.ndarray, rows: np.ndarray, num_results: int
    ) -> tuple[np.ndarray, np.ndarray]:
        copy = self.copy
        values = unpack_signs(self.signs[rows], self.dim) if copy is None else copy[rows]
        best = search_exact(query[None], values, num_results)
        return rows[best.indices[0]].astype(np.int64), best.scores[0]


def values_of(
    vectors: Float32[np.ndarray, "texts dim"], kind: Format
) -> Float32[np.ndarray, "texts dim"]:
    """Return what the codes of vectors of length 1 stand for, as in training."""
    values: Float32[np.ndarray, "texts dim"] = straight_through(
        torch.from_numpy(np.array(vectors)), kind
    ).numpy()
    return values


def pack_codes(
    vectors: Float32[np.ndarray, "texts dim"], kind: Format
) -> Shaped[np.ndarray, "texts bytes"]:
    """Return what is stored of vectors of length 1.

    int8: a byte c, which stands for c / 127. binary: a bit per number, 1 where it is not below 0, eight to a byte. ternary:
    such bits, and behind them bits that are 1 where a number is not near 0.
    """
    codes: Shaped[np.ndarray, "texts bytes"] = sign_bits(vectors)
    if kind == "int8":
        codes = np.rint(LARGEST_CODE * values_of(vectors, kind)).astype(np.int8)
    elif kind == "ternary":
        planes = codes, np.packbits(values_of(vectors, kind) != 0, axis=1)
        codes = np.concatenate(planes, axis=1)
    return codes


def _ternary(
    vectors: Float32[np.ndarray, "texts dim"],
) -> Float32[np.ndarray, "texts dim"]:
    """Return what three levels stand for; which numbers are near 0 is known of vectors of length 1 alone."""
    longest = float(np.linalg.norm(vectors, axis=1).max(initial=0.0))
    if longest > LONGEST:
        problem = "is for vectors of length 1, and the model compares by inner products"
        raise UserError("ternary", problem, got=round(longest, 3), cure="Use int8")
    return values_of(vectors, "ternary")


def ternary_bytes(vectors: Float32[np.ndarray, "texts dim"]) -> int:
    """Return the bytes of two planes of bits, whether a number is 0 and its sign."""
    width = int(vectors.shape[1])
    return 2 * len(vectors) * -(-width // 8)


def quantize_bytes(
    values: Float[np.ndarray, "rows dim"],
) -> tuple[UInt8[np.ndarray, "rows dim"], Float32[np.ndarray, " dim"], Float32[np.ndarray, " dim"]]:
    """Return a code for each number, the lowest value and the step of each dimension.

    Codes are those of sentence-transformers' ``quantize_embeddings(..., "uint8")``.
    """
    lowest, highest = values.min(axis=0), values.max(axis=0)
    step = np.maximum((highest - lowest) / STEPS, np.finfo(np.float32).tiny).astype(np.float32)
    codes = np.clip(np.floor((values - lowest) / step), 0, STEPS).astype(np.uint8)
    return codes, lowest.astype(np.float32), step


def dequantize_bytes(
    codes: UInt8[np.ndarray, "rows dim"],
    lowest: Float32[np.ndarray, " dim"],
    step: Float32[np.ndarray, " dim"],
) -> Float32[np.ndarray, "rows dim"]:
    """Return the middle of the range that each code stands for; the last one is the highest value alone."""
    places = np.minimum(codes + np.float32(0.5), np.float32(STEPS))
    values: Float32[np.ndarray, "rows dim"] = lowest + places * step
    return values


def _sparse_index(documents: SparseVectors, quantize: str | None) -> CompressedIndex:
    if quantize in ("binary", "ternary"):
        cure = "Use int8, or train a model of binary weights"
        raise UserError("--quantize", "would leave no weight of a word", got=quantize, cure=cure)
    return (InvertedSearch() if quantize is None else ByteListSearch()).build(documents)


def _token_index(
    documents: TokenVectors, quantize: str | None, device: torch.device | str
) -> FloatIndex | BinaryIndex:
    if quantize == "binary":
        return BinarySearch().build(documents)
    if quantize is None:
        return FloatIndex(documents, documents.nbytes, device)
    beside = documents.nbytes - documents.values.nbytes
    if quantize == "ternary":
        values = replace(documents, values=_ternary(documents.values))
        return FloatIndex(values, ternary_bytes(documents.values) + beside, device)
    codes, lowest, step = quantize_bytes(documents.values)
    values = replace(documents, values=dequantize_bytes(codes, lowest, step))
    return FloatIndex(values, codes.nbytes + lowest.nbytes + step.nbytes + beside, device)
