"""Vectors of which nobody knows beforehand how much room they take: several for a text, or sparse ones.

Each block of texts is a folder of its own, and the first rank joins them.
"""

import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from embedtrain.arrays import new_array, place_array
from embedtrain.encoding.blocks import block_size, block_starts, small_chunks
from embedtrain.encoding.shards import Shard, wait_for
from embedtrain.encoding.texts import encode_pieces, encode_texts, join_blocks
from embedtrain.errors import UserError
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.precision import Chosen
from embedtrain.progress import progress_bar
from embedtrain.retrieval.index_folder import (
    ARRAYS,
    MANIFEST,
    SPARSE_ARRAYS,
    load_sparse,
    read_array,
    read_manifest,
    save_sparse,
    write_manifest,
)
from embedtrain.retrieval.late_interaction.exact import ExactIndex
from embedtrain.seals import keep_once, refuse_damaged
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import Side, TokenEmbeddings, TokenVectors


def embed_blocks(
    model: TextEncoder,
    texts: Sequence[str],
    side: Side,
    folder: Path,
    shard: Shard,
    precision: Chosen,
) -> TokenVectors | SparseVectors:
    """Return the vectors of texts, mapped from ``folder``; blocks that it lacks are encoded, shared by the ranks."""
    joined = folder / "joined"
    size, starts = block_size(len(texts)), block_starts(len(texts))
    blocks = [folder / f"{start:012d}" for start in starts]
    for kept in (joined, *blocks):
        refuse_damaged(kept)
    if not (joined / MANIFEST).is_file():
        todo = [
            (start, block)
            for start, block in list(zip(starts, blocks, strict=True))[shard.rank :: shard.ranks]
            if not (block / MANIFEST).is_file()
        ]
        pieces = [texts[start : start + size] for start, _ in todo]
        encoded = _encode(model, pieces, side, precision)
        for vectors, (_, block) in zip(encoded, todo, strict=True):
            keep_once(block, partial(_save, vectors))
        if shard.is_first:
            wait_for([block / MANIFEST for block in blocks], unless=joined)
            _join(blocks, joined)
    wait_for([joined / MANIFEST])
    if isinstance(model, SparseEncoder):
        return load_sparse(joined)
    return ExactIndex.load(joined).documents


def _encode(
    model: TextEncoder, pieces: Sequence[Sequence[str]], side: Side, precision: Chosen
) -> Iterator[TokenVectors | SparseVectors]:
    with progress_bar(f"Encoding {side} texts", sum(map(len, pieces))) as advance:
        if isinstance(model, SparseEncoder):
            chunks = small_chunks(model)
            for piece in pieces:
                yield encode_texts(
                    model, piece, side, execution=chunks, precision=precision, progress=advance
                )
            return
        for found in encode_pieces(model, pieces, side, precision=precision, progress=advance):
            assert isinstance(found, TokenEmbeddings)
            yield join_blocks([found])


def _save(vectors: TokenVectors | SparseVectors, folder: Path) -> None:
    if isinstance(vectors, SparseVectors):
        save_sparse(vectors, folder)
    else:
        ExactIndex(vectors).save(folder)


def _join(blocks: Sequence[Path], joined: Path) -> None:
    """Write the arrays of all blocks behind one another, a block in memory at a time.

    Another run may do the same, and remove the blocks when it has finished.
    """
    try:
        keep_once(joined, partial(_write_joined, blocks))
    except (OSError, UserError):
        if not joined.is_dir():
            raise
    for block in blocks:
        shutil.rmtree(block, ignore_errors=True)


def _write_joined(blocks: Sequence[Path], folder: Path) -> None:
    manifest = read_manifest(blocks[0])
    is_sparse = manifest["kind"] == "sparse"
    for name in SPARSE_ARRAYS if is_sparse else ARRAYS:
        paths = [block / f"{name}.npy" for block in blocks]
        if not paths[0].is_file():
            continue
        parts = [read_array(path) for path in paths]
        if name == "offsets":  # of each block they begin at 0
            counts = np.concatenate([np.diff(part) for part in parts])
            place_array(folder / "offsets.npy", np.concatenate([[0], np.cumsum(counts)]))
            continue
        shape = (sum(map(len, parts)), *parts[0].shape[1:])
        whole = new_array(folder / f"{name}.npy", parts[0].dtype, shape)
        np.concatenate(parts, out=whole)
    key = "dim" if is_sparse else "exact_match"
    write_manifest(folder, manifest["kind"], {key: manifest[key]})
