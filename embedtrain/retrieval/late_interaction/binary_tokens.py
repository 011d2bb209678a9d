r"""Document tokens as signs, one bit for each number, against queries of floats.

$$s(q, d) = \sum_i \max_j \langle q_i, b_j \rangle / \sqrt{D}, \quad b = +1 \text{ where } x \ge 0,
\text{ else } -1$$

``D / 8`` bytes a token, a 32nd of float32. Dividing by the square root gives a token the length 1.

Source: Cao et al. (2024), https://arxiv.org/abs/2310.01329 (binary token representations of passages).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from pydantic import PositiveInt

from embedtrain.errors import UserError
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.late_interaction.exact import (
    BLOCK_TOKENS,
    check_documents,
    check_search,
    cut_blocks,
    search_blocks,
)
from embedtrain.retrieval.late_interaction.index_folder import (
    new_folder,
    read_array,
    read_manifest,
    write_manifest,
)
from embedtrain.section import Section
from embedtrain.types import TokenVectors

OPTIONAL = ("ids", "cls")


@dataclass(frozen=True)
class BinaryTokens:
    """Token vectors as packed signs; ids and ``cls`` vectors stay as they were."""

    signs: UInt8[np.ndarray, "tokens bytes"]
    dim: int
    lengths: Int64[np.ndarray, " texts"]
    ids: Int64[np.ndarray, " tokens"] | None = None
    cls: Float[np.ndarray, "texts cls_dim"] | None = None
    exact_match: bool = False

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def nbytes(self) -> int:
        """Bytes of the signs, of the ``cls`` vectors, and of ids where scores need them."""
        ids = self.ids.nbytes if self.ids is not None and self.exact_match else 0
        return self.signs.nbytes + ids + (0 if self.cls is None else self.cls.nbytes)

    def part(self, start: int, stop: int) -> TokenVectors:
        """Return the texts from ``start`` to ``stop`` as floats."""
        before = int(self.lengths[:start].sum())
        tokens = slice(before, before + int(self.lengths[start:stop].sum()))
        return TokenVectors(
            unpack_signs(self.signs[tokens], self.dim),
            self.lengths[start:stop],
            None if self.ids is None else self.ids[tokens],
            None if self.cls is None else self.cls[start:stop],
            self.exact_match,
        )


def pack_signs(vectors: TokenVectors) -> BinaryTokens:
    """Keep one bit of each number, set where it is not negative; vectors may be mapped from a file."""
    blocks = []
    for start, stop in cut_blocks(vectors.lengths, BLOCK_TOKENS):
        values = vectors.part(start, stop).values
        if np.isnan(values).any():  # it would become a sign like any other
            raise UserError("documents", "hold NaN", cure="Check the model and its input")
        blocks.append(np.packbits(values >= 0, axis=1))
    return BinaryTokens(
        np.concatenate(blocks),
        vectors.values.shape[1],
        vectors.lengths,
        vectors.ids,
        vectors.cls,
        vectors.exact_match,
    )


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
    block_tokens: PositiveInt = BLOCK_TOKENS
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
        blocks = (
            self.documents.part(start, stop).tensors(self.device)
            for start, stop in cut_blocks(self.documents.lengths, self.block_tokens)
        )
        best = search_blocks(queries, blocks, num_results, self.device)
        return SearchResult(best.indices.cpu().numpy(), best.scores.cpu().numpy())

    def save(self, folder: Path) -> None:
        """Write the packed signs and a manifest."""
        with new_folder(folder) as partial:
            for name in ("signs", "lengths", *OPTIONAL):
                if (array := getattr(self.documents, name)) is not None:
                    np.save(partial / f"{name}.npy", array, allow_pickle=False)
            content = {"dim": self.documents.dim, "exact_match": self.documents.exact_match}
            write_manifest(partial, self.kind, content)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "BinaryIndex":
        """Map a saved index into memory."""
        manifest = read_manifest(folder, "binary", "dim", "exact_match")
        optional = {
            name: read_array(path)
            for name in OPTIONAL
            if (path := folder / f"{name}.npy").is_file()
        }
        documents = BinaryTokens(
            read_array(folder / "signs.npy"),
            manifest["dim"],
            read_array(folder / "lengths.npy"),
            exact_match=manifest["exact_match"],
            **optional,
        )
        return cls(documents, device=device)
