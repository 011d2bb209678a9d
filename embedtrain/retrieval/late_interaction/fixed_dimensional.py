"""Fixed dimensional encodings (MUVERA): one long vector per text whose inner product follows MaxSim.

For each repetition r, tokens fall into buckets by the signs of random projections,
``c = bits of [G_r x > 0]``, and are shortened to ``psi(x) = S_r x / sqrt(p)`` with signs ``S_r``. A query's
block of bucket c is the sum of its tokens there; a document's is their mean, or, where the bucket is empty,
the document's token whose code differs in the fewest bits. ``<encode(q), encode(d)> / R`` is near MaxSim,
and below it in expectation. Candidates found with faiss are then scored exactly.

Source: Dhulipala et al. (2024), https://arxiv.org/abs/2405.19504.
"""

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Int64
from pydantic import Field
from torch import Tensor

from embedtrain.arrays import new_array, place_array
from embedtrain.errors import UserError
from embedtrain.outside import writing
from embedtrain.retrieval.dense.faiss_index import (
    build_index,
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
    cls_dim,
    cut_blocks,
)
from embedtrain.retrieval.late_interaction.rerank import CandidateIndex
from embedtrain.section import Count, Section
from embedtrain.types import Side, TokenVectors

ENCODED_TOKENS = 2**14
"""Tokens projected at once."""
FILLED_KEYS = 2**24
"""Distances between buckets compared at once where empty buckets are filled (128 MiB)."""
FAISS_FILE = "encodings.faiss"


class FixedDimensionalSearch(Section):
    """Search one encoding per document with faiss and score the best exactly.

    An encoding has ``repetitions * 2**bits * inner_dim`` numbers, or ``final_dim``.
    """

    name: Literal["fde"] = "fde"
    repetitions: Count = 20
    """R, independent partitions of the space."""
    bits: int = Field(default=5, ge=0, le=10)
    """Random planes of a partition; it has ``2**bits`` buckets."""
    inner_dim: Count | None = 16
    """p, numbers kept of each token; None, or the tokens' own dimension, keeps them as they are."""
    final_dim: Count | None = None
    """Numbers kept of the whole encoding: each is added, with a random sign, to a random place."""
    fill_empty: bool = True
    """Give an empty bucket of a document its token with the nearest code."""
    seed: int = 0
    factory: str = "Flat"
    """The faiss index of the encodings: ``Flat``, ``SQ8``, ``PQ256x8``, ``HNSW32`` ..."""
    parameters: str = ""
    """How the faiss index searches: ``efSearch=128``."""
    num_candidates: Count = 200
    """Documents scored exactly for each query."""

    def build(
        self, documents: TokenVectors, device: torch.device | str = "cpu"
    ) -> "FixedDimensionalIndex":
        """Encode the documents and index the encodings; memory is that of the faiss index."""
        check_inexact(documents, "fde")
        encoder = Encoder.draw(self, documents.values.shape[1])
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            shape = (len(documents), encoder.dim + cls_dim(documents))
            with writing(folder):
                encodings = new_array(Path(folder) / "encodings.npy", np.float32, shape)
            for start, stop in cut_blocks(documents.lengths, ENCODED_TOKENS):
                encodings[start:stop] = encoder.with_cls(documents.part(start, stop), "document")
            index = build_index(encodings, self.factory, parameters=self.parameters, seed=self.seed)
        return FixedDimensionalIndex(documents, index, self.num_candidates, device, encoder)


@dataclass(frozen=True)
class Encoder:
    """The random draws of one configuration: queries and documents must share them."""

    settings: FixedDimensionalSearch
    planes: Float32[np.ndarray, "repetitions bits token_dim"]
    signs: Float32[np.ndarray, "repetitions inner_dim token_dim"] | None = None
    places: Int64[np.ndarray, "2 long_dim"] | None = None
    """Where each number of the long encoding is added, and with which sign."""

    @classmethod
    def draw(cls, settings: FixedDimensionalSearch, token_dim: int) -> "Encoder":
        """Draw Gaussian planes and random signs from the seed."""
        random = np.random.Generator(np.random.PCG64(settings.seed))
        shape = (settings.repetitions, settings.bits, token_dim)
        planes = random.standard_normal(shape, dtype=np.float32)
        inner, signs, places = token_dim, None, None
        if settings.inner_dim not in (None, token_dim):
            inner = settings.inner_dim
            shape = (settings.repetitions, inner, token_dim)
            signs = (2 * random.integers(2, size=shape) - 1).astype(np.float32)
        if settings.final_dim is not None:
            long_dim = settings.repetitions * 2**settings.bits * inner
            targets = random.integers(settings.final_dim, size=long_dim)
            places = np.stack([targets, 2 * random.integers(2, size=long_dim) - 1])
        return cls(settings, planes, signs, places)

    @property
    def dim(self) -> int:
        """The numbers of an encoding."""
        if self.settings.final_dim is not None:
            return self.settings.final_dim
        inner = self.planes.shape[2] if self.signs is None else self.signs.shape[1]
        return int(self.settings.repetitions * 2**self.settings.bits * inner)

    @property
    def digest(self) -> str:
        """A hash of the settings that encode and of everything drawn."""
        encoding = self.settings.model_dump_json(
            exclude={"factory", "parameters", "num_candidates"}
        )
        key = hashlib.sha256(encoding.encode())
        for array in (self.planes, self.signs, self.places):
            key.update(b"" if array is None else np.ascontiguousarray(array).data)
        return key.hexdigest()

    def encode(self, vectors: TokenVectors, side: Side) -> Float32[np.ndarray, "texts encoding"]:
        """Encode texts: sums in the buckets of a query, means in those of a document.

        A text without tokens gives zeros.
        """
        tokens = vectors.tensors().tokens
        lengths = torch.from_numpy(np.array(vectors.lengths))
        blocks = [
            self._block(tokens, lengths, repetition, side)
            for repetition in range(self.settings.repetitions)
        ]
        encoded = torch.stack(blocks, 1).flatten(1)
        if self.places is not None:
            targets, signs = torch.from_numpy(self.places)
            shorter = encoded.new_zeros(len(encoded), self.dim)
            encoded = shorter.index_add_(1, targets, encoded * signs)
        result: Float32[np.ndarray, "texts encoding"] = encoded.numpy()
        return result

    def with_cls(self, vectors: TokenVectors, side: Side) -> Float32[np.ndarray, "texts encoding"]:
        """Encode texts so that one inner product follows the whole score, ``cls`` included."""
        scale = np.float32(1 / self.settings.repetitions if side == "query" else 1)
        encoded = self.encode(vectors, side) * scale
        return encoded if vectors.cls is None else np.hstack([encoded, np.float32(vectors.cls)])

    def _block(
        self, tokens: Tensor, lengths: Tensor, repetition: int, side: Side
    ) -> Float32[Tensor, "texts buckets inner_dim"]:
        """Encode with one partition of the space."""
        num_buckets = 2**self.settings.bits
        positive = tokens @ torch.from_numpy(self.planes[repetition]).T > 0
        codes = (positive.long() << torch.arange(self.settings.bits)).sum(1)
        projected = tokens
        if self.signs is not None:
            signs = torch.from_numpy(self.signs[repetition])
            projected = tokens @ signs.T / signs.shape[0] ** 0.5
        texts = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        cells = texts * num_buckets + codes
        shape = len(lengths) * num_buckets
        sums = projected.new_zeros(shape, projected.shape[1]).index_add_(0, cells, projected)
        if side == "document":
            counts = torch.bincount(cells, minlength=shape)
            sums /= counts.clamp(min=1)[:, None]
            if self.settings.fill_empty:
                nearest = _nearest_tokens(cells, shape, num_buckets)
                empty = (counts == 0) & (nearest < len(tokens))
                sums[empty] = projected[nearest[empty]]
        return sums.view(len(lengths), num_buckets, -1)


@dataclass(frozen=True)
class FixedDimensionalIndex(CandidateIndex):
    """Encodings in a faiss index, which proposes candidates for exact scores."""

    encoder: Encoder
    kind: Literal["fde"] = "fde"

    def propose(  # noqa: D102
        self, queries: TokenVectors, wanted: int
    ) -> Int64[np.ndarray, "queries _"]:
        blocks = (queries.part(*some) for some in cut_blocks(queries.lengths, ENCODED_TOKENS))
        encoded = (self.encoder.with_cls(block, "query") for block in blocks)
        return np.concatenate([search_index(self.index, one, wanted).indices for one in encoded])

    def save(self, folder: Path) -> None:
        """Write the faiss index, the random draws and the vectors."""
        with new_folder(folder) as partial:
            write_vectors(partial, self.documents)
            save_index(self.index, partial / FAISS_FILE)
            for name in ("planes", "signs", "places"):
                if (array := getattr(self.encoder, name)) is not None:
                    place_array(partial / f"{name}.npy", array)
            used = {"num_candidates": self.num_candidates}
            settings = self.encoder.settings.model_copy(update=used).model_dump()
            content = {"settings": settings, "digest": self.encoder.digest}
            write_manifest(partial, self.kind, content)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "FixedDimensionalIndex":
        """Map a saved index into memory; draws that are not those of the index are refused."""
        manifest = read_manifest(folder, "fde", "settings", "digest")
        arrays = {
            name: np.array(read_array(path))
            for name in ("planes", "signs", "places")
            if (path := folder / f"{name}.npy").is_file()
        }
        settings = FixedDimensionalSearch.model_validate(manifest["settings"])
        encoder = Encoder(settings, **arrays)
        if encoder.digest != manifest["digest"]:
            raise UserError(
                folder,
                "holds other settings or random draws than the encodings were made with",
                cure="Build the index again",
            )
        documents = check_documents(read_vectors(folder, exact_match=False))
        index = load_index(folder / FAISS_FILE)
        return cls(documents, index, settings.num_candidates, device, encoder)


def _nearest_tokens(
    cells: Int64[Tensor, " tokens"], num_cells: int, num_buckets: int
) -> Int64[Tensor, " cells"]:
    """Find, for each bucket of each text, the text's token whose code differs in the fewest bits.

    Ties go to the first token; a text without tokens gets the number of all tokens.
    """
    absent = len(cells)
    first = torch.full((num_cells,), absent).scatter_reduce_(
        0, cells, torch.arange(len(cells)), "amin"
    )
    bits = torch.arange(num_buckets)[:, None] >> torch.arange(num_buckets.bit_length()) & 1
    differing = (bits[:, None] != bits).sum(2)
    first = first.view(-1, 1, num_buckets)
    # One number orders by differing bits, then by place; an absent token lies beyond every other.
    first = first + (first == absent) * (num_buckets * (absent + 1))
    nearest = [
        (differing * (absent + 1) + part).amin(2) % (absent + 1)
        for part in torch.split(first, max(1, FILLED_KEYS // num_buckets**2))
    ]
    return torch.cat(nearest).flatten()
