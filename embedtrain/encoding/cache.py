"""Embeddings of many texts, computed once per weights, memory-mapped, and resumed after a kill."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from torch import nn

from embedtrain.arrays import new_array
from embedtrain.encoding.shards import Shard, wait_for
from embedtrain.encoding.texts import TEXTS_AT_ONCE, encode_texts
from embedtrain.errors import UserError
from embedtrain.files import appearing, write_file
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.encoder import TextEncoder
from embedtrain.progress import console, progress_bar
from embedtrain.retrieval.late_interaction.exact import ExactIndex
from embedtrain.retrieval.late_interaction.index_folder import (
    ARRAYS,
    MANIFEST,
    read_manifest,
    write_manifest,
)
from embedtrain.seals import (
    checksum_of,
    identity_of,
    keep_once,
    refuse_damaged,
    set_aside,
    spread,
)
from embedtrain.types import Side, TokenVectors

VECTORS = "vectors.npy"


def model_key(model: TextEncoder) -> str:
    """Hash the weights and the contract: any changed weight, prompt or length gives another key.

    A learnt temperature is left out: it changes no vector, and an exported model has none.
    """
    key = hashlib.sha256(model.contract.model_dump_json().encode())
    for side in ("query", "document"):
        key.update(model.tokenization.fingerprint(side).encode())
    return hash_state(model, key)


def hash_state(model: nn.Module, key: "hashlib._Hash") -> str:
    """Add all weights and buffers, by name, to a hash and return its digest."""
    for name, values in sorted(model.state_dict().items()):
        if name == "log_temperature":
            continue
        key.update(name.encode())
        flat = values.detach().cpu().contiguous().view(-1)
        key.update(flat.view(torch.uint8).numpy().data)
    return key.hexdigest()


def embeddings_folder(
    cache: Path, key: str, texts: Sequence[str], side: Side, precision: str = "fp32"
) -> Path:
    """Return where the embeddings of these texts, in this order, are kept."""
    digest = hashlib.sha256(f"{key}\n{side}\n{precision}".encode())
    for text in texts:
        digest.update(hashlib.sha256(text.encode()).digest())
    return cache / "embeddings" / digest.hexdigest()[:32]


def load_embeddings(folder: Path, num_texts: int) -> Float32[np.ndarray, "texts dim"] | None:
    """Map the embeddings of a folder; None if it does not hold all of them."""
    marks = _marks(folder, num_texts)
    _refuse_damaged(folder / VECTORS, marks, num_texts, None)
    if not (folder / VECTORS).exists() or not all(mark.exists() for mark in marks):
        return None
    embeddings: Float32[np.ndarray, "texts dim"] = np.load(folder / VECTORS, mmap_mode="r")
    return embeddings


def keep_embeddings(folder: Path, embeddings: Float32[np.ndarray, "texts dim"]) -> None:
    """Put embeddings that were computed elsewhere where :func:`embed_once` finds them."""
    _allocate(folder / VECTORS, *embeddings.shape)
    array = np.load(folder / VECTORS, mmap_mode="r+")
    array[:] = embeddings
    array.flush()
    for number, mark in enumerate(_marks(folder, len(embeddings))):
        write_file(mark, _checksum(array, number))


def _refuse_damaged(path: Path, marks: Sequence[Path], num_texts: int, dim: int | None) -> None:
    """Set aside vectors of another shape or length; take the marks from blocks that changed since.

    Args:
        path: The file of vectors.
        marks: Those of the blocks to look at, by their number; each holds the checksum of its block.
        num_texts: Rows that the file is to have.
        dim: Numbers of a row; None for any.
    """
    identity = identity_of(path)
    array = None
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        set_aside(path, "is no array of vectors", identity)
    wanted = (num_texts, dim if dim is not None or array is None else array.shape[-1])
    if array is not None and (array.shape != wanted or array.dtype != np.float32):
        set_aside(path, f"does not hold {num_texts:,} vectors", identity)
        array = None
    done = [(int(mark.stem) // TEXTS_AT_ONCE, mark) for mark in marks if mark.exists()]
    for number, mark in done if array is None else spread(done):
        with suppress(FileNotFoundError):  # another rank took it
            if array is None or mark.read_text(encoding="utf-8") != _checksum(array, number):
                mark.unlink()
                if array is not None:
                    console.print(
                        f"{path} is damaged from row {number * TEXTS_AT_ONCE:,}. It is encoded again."
                    )


def _checksum(array: Float32[np.ndarray, "texts dim"], number: int) -> str:
    block = array[number * TEXTS_AT_ONCE : (number + 1) * TEXTS_AT_ONCE]
    return checksum_of(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)


def _marks(folder: Path, num_texts: int) -> list[Path]:
    """Return the files that say that a block is done."""
    return [folder / f"{start:012d}.sum" for start in range(0, num_texts, TEXTS_AT_ONCE)]


Vectors = Float32[np.ndarray, "texts dim"] | TokenVectors


def embed_once(
    model: TextEncoder,
    key: str,
    texts: Sequence[str],
    side: Side,
    cache: Path,
    *,
    shard: Shard | None = None,
    precision: str = "fp32",
) -> Vectors:
    """Return the vectors of ``texts``, one each or several, mapped from files; what these lack is encoded first.

    Blocks of texts are encoded one by one, each marked when it is done, so that a killed run goes on with
    the next block and ends with the same bytes. Ranks share the blocks.

    Args:
        model: The encoder.
        key: Its :func:`model_key`.
        texts: In a fixed order.
        side: Whose prompt and length to use.
        cache: Folder of caches.
        shard: This process among several; the only one if None.
        precision: ``bf16`` encodes under autocast.
    """
    shard = shard or Shard()
    folder = embeddings_folder(cache, key, texts, side, precision)
    if not isinstance(model, DenseEncoder):
        return _embed_tokens(model, texts, side, folder, shard, precision)
    path = folder / VECTORS
    marks = _marks(folder, len(texts))
    _refuse_damaged(path, marks[shard.rank :: shard.ranks], len(texts), model.dim)
    _allocate(path, len(texts), model.dim)
    todo = [n for n, mark in enumerate(marks) if shard.takes(n) and not mark.exists()]
    if todo:
        _encode(model, texts, side, path, {number: marks[number] for number in todo}, precision)
    wait_for(marks)
    embeddings: Float32[np.ndarray, "texts dim"] = np.load(path, mmap_mode="r")
    return embeddings


def _encode(
    model: DenseEncoder,
    texts: Sequence[str],
    side: Side,
    path: Path,
    marks: Mapping[int, Path],
    precision: str,
) -> None:
    """Encode some blocks into the file and mark each when it is done."""
    array = np.load(path, mmap_mode="r+")
    autocast = torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16")
    # On a CPU a small chunk stays in the cache and needs little memory.
    run = Execution(chunk_tokens=2048 if model.device.type == "cpu" else 65_536)
    blocks = {n: slice(n * TEXTS_AT_ONCE, (n + 1) * TEXTS_AT_ONCE) for n in marks}
    total = sum(len(texts[block]) for block in blocks.values())
    with progress_bar(f"Encoding {side} texts", total) as advance, autocast:
        for number, block in blocks.items():
            out = array[block]
            encode_texts(model, texts[block], side, execution=run, out=out, progress=advance)
            array.flush()
            write_file(marks[number], _checksum(array, number))


def _allocate(path: Path, rows: int, dim: int) -> None:
    """Make an empty array file; where ranks race, one wins and the others use its file."""
    if path.exists():
        return
    with appearing(path, replace=False) as partial:
        new_array(partial, np.float32, (rows, dim))


def _embed_tokens(
    model: TextEncoder,
    texts: Sequence[str],
    side: Side,
    folder: Path,
    shard: Shard,
    precision: str,
) -> TokenVectors:
    """Encode texts of several vectors each.

    Nobody knows beforehand how many a block of texts has, so each is a folder of its own, and the first rank
    joins them.
    """
    joined = folder / "joined"
    starts = range(0, len(texts), TEXTS_AT_ONCE)
    blocks = [folder / f"{start:012d}" for start in starts]
    autocast = torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16")
    for kept in (joined, *blocks):
        refuse_damaged(kept)
    if not (joined / MANIFEST).is_file():
        with progress_bar(f"Encoding {side} texts", len(texts)) as advance, autocast:
            for number, start in enumerate(starts):
                if shard.takes(number) and not (blocks[number] / MANIFEST).is_file():
                    block = texts[start : start + TEXTS_AT_ONCE]
                    vectors = encode_texts(model, block, side, progress=advance)
                    assert isinstance(vectors, TokenVectors)
                    keep_once(blocks[number], ExactIndex(vectors).save)
        if shard.is_first:
            wait_for([block / MANIFEST for block in blocks], unless=joined)
            _join(blocks, joined)
    wait_for([joined / MANIFEST])
    return ExactIndex.load(joined).documents


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
    exact_match = read_manifest(blocks[0])["exact_match"]
    for name in ARRAYS:
        paths = [block / f"{name}.npy" for block in blocks]
        if not paths[0].is_file():
            continue
        parts = [np.load(path, mmap_mode="r") for path in paths]
        shape = (sum(map(len, parts)), *parts[0].shape[1:])
        whole = new_array(folder / f"{name}.npy", parts[0].dtype, shape)
        np.concatenate(parts, out=whole)
    write_manifest(folder, "exact", {"exact_match": exact_match})
