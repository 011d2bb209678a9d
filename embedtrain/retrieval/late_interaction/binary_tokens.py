r"""Document tokens as signs, one bit for each number, against queries of floats.

$$s(q, d) = \sum_i \max_j \langle q_i, b_j \rangle / \sqrt{D}, \quad b = +1 \text{ where } x \ge 0,
\text{ else } -1$$

``D / 8`` bytes a token, a 32nd of float32. Dividing by the square root gives a token the length 1.

Source: Cao et al. (2024), https://arxiv.org/abs/2310.01329 (binary token representations of passages).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8

from embedtrain.errors import UserError
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.index_folder import (
    new_folder,
    read_manifest,
    read_vectors,
    write_manifest,
    write_vectors,
)
from embedtrain.retrieval.late_interaction.exact import (
    BLOCK_TOKENS,
    check_documents,
    check_search,
    cut_blocks,
    search_blocks,
)
from embedtrain.section import Count, Section
from embedtrain.types import TokenVectors


@dataclass(frozen=True)
class BinaryTokens:
    """Token vectors as packed signs; ids and ``cls`` vectors stay as they were."""

    packed: TokenVectors
    """With eight signs to a byte in place of the values."""
    dim: int

    def __len__(self) -> int:
        return len(self.packed)

    @property
    def nbytes(self) -> int:
        """Bytes of the signs, of the ``cls`` vectors, and of ids where scores need them."""
        return self.packed.nbytes

    def part(self, start: int, stop: int) -> TokenVectors:
        """Return the texts from ``start`` to ``stop`` as floats."""
        part = self.packed.part(start, stop)
        return replace(part, values=unpack_signs(part.values, self.dim))


def pack_signs(vectors: TokenVectors) -> BinaryTokens:
    """Keep one bit of each number, set where it is not negative; vectors may be mapped from a file."""
    blocks = []
    for start, stop in cut_blocks(vectors.lengths, BLOCK_TOKENS):
        values = vectors.part(start, stop).values
        if np.isnan(values).any():  # it would become a sign like any other
            raise UserError("documents", "hold NaN", cure="Check the model and its input")
        blocks.append(sign_bits(values))
    return BinaryTokens(replace(vectors, values=np.concatenate(blocks)), vectors.values.shape[1])


def sign_bits(values: Float[np.ndarray, "rows dim"]) -> UInt8[np.ndarray, "rows bytes"]:
    """Return eight signs to a byte, bits behind the last dimension 0; zero counts as positive, as in training."""
    return np.packbits(values >= 0, axis=1)


def unpack_signs(
    signs: UInt8[np.ndarray, "tokens bytes"], dim: int
) -> Float32[np.ndarray, "tokens dim"]:
    """Return ``1 / sqrt(dim)`` for each bit that is set and its negative for the others."""
    scale = np.float32(1 / np.sqrt(dim))
    bits = np.unpackbits(signs, axis=1, count=dim)
    values: Float32[np.ndarray, "tokens dim"] = np.where(bits, scale, -scale)
    return values


class BinarySearch(Section):
    """Score every document by the signs of its tokens: a 32nd of the memory, no training needed."""

    name: Literal["binary"] = "binary"
    block_tokens: Count = BLOCK_TOKENS
    """Document tokens unpacked at once."""

    def build(self, documents: TokenVectors, device: torch.device | str = "cpu") -> "BinaryIndex":
        """Pack the signs of the documents."""
        return BinaryIndex(pack_signs(check_documents(documents)), self.block_tokens, device)


@dataclass(frozen=True)
class BinaryIndex:
    """Scores every document by its packed signs, unpacked block by block."""

    documents: BinaryTokens
    block_tokens: int = BLOCK_TOKENS
    device: torch.device | str = "cpu"
    kind: Literal["binary"] = "binary"

    @property
    def num_bytes(self) -> int:
        """Bytes of the packed signs and what belongs to them."""
        return self.documents.nbytes

    def search(self, queries: TokenVectors, num_results: int) -> SearchResult:
        """Return the best documents of each query; ties, which signs make often, by lower index."""
        check_search(queries, self.documents.part(0, 1), num_results)
        ranges = cut_blocks(self.documents.packed.lengths, self.block_tokens)
        blocks = (self.documents.part(*some).tensors(self.device) for some in ranges)
        return search_blocks(queries, blocks, num_results, self.device)

    def save(self, folder: Path) -> None:
        """Write the packed signs and a manifest."""
        packed = self.documents.packed
        with new_folder(folder) as partial:
            write_vectors(partial, packed, values="signs")
            content = {"dim": self.documents.dim, "exact_match": packed.exact_match}
            write_manifest(partial, self.kind, content)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "BinaryIndex":
        """Map a saved index into memory."""
        manifest = read_manifest(folder, "binary", "dim", "exact_match")
        packed = read_vectors(folder, exact_match=manifest["exact_match"], values="signs")
        return cls(BinaryTokens(packed, manifest["dim"]), device=device)
