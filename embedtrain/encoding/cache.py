"""Embeddings of many texts, computed once per weights, memory-mapped, and resumed after a kill."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import nn

from embedtrain.arrays import new_array
from embedtrain.encoding.block_folders import embed_blocks
from embedtrain.encoding.blocks import block_size, block_starts, small_chunks
from embedtrain.encoding.overlap import behind
from embedtrain.encoding.shards import Shard, wait_for
from embedtrain.encoding.texts import encode_pieces
from embedtrain.files import appearing, write_file
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.encoder import TextEncoder
from embedtrain.precision import Chosen, Precision, choose
from embedtrain.progress import console, progress_bar
from embedtrain.seals import checksum_of, identity_of, set_aside, spread
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import Side, TokenVectors

VECTORS = "vectors.npy"


def model_key(model: TextEncoder) -> str:
    """Hash the weights and the contract: any changed weight, prompt or length gives another key.

    A learnt temperature is left out: it changes no vector, and an exported model has none.
    """
    identity = model.contract.model_dump_json()
    for side in ("query", "document"):
        identity += model.tokenization.fingerprint(side)
    return hash_state(model, identity)


def hash_state(model: nn.Module, identity: str) -> str:
    """Return a hash of what else says which model it is, and of all weights and buffers by name."""
    key = hashlib.sha256(identity.encode())
    for name, values in sorted(model.state_dict().items()):
        if name == "log_temperature":
            continue
        key.update(name.encode())
        flat = values.detach().cpu().contiguous().view(-1)
        key.update(flat.view(torch.uint8).numpy().data)
    return key.hexdigest()


def embeddings_folder(
    cache: Path, key: str, texts: Sequence[str], side: Side, precision: Chosen = "fp32"
) -> Path:
    """Return where the embeddings of these texts, in this order, are kept."""
    digest = hashlib.sha256(f"{key}\n{side}\n{precision}\n{block_size(len(texts))}".encode())
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
    for mark in _marks(folder, len(embeddings)):
        write_file(mark, _checksum(array, mark))


def _refuse_damaged(path: Path, marks: Sequence[Path], num_texts: int, dim: int | None) -> None:
    """Set aside vectors of another shape or length; take the marks from blocks that changed since.

    Args:
        path: The file of vectors.
        marks: Those of the blocks to look at; each holds the checksum of its block, and is named by its first row.
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
    done = [mark for mark in marks if mark.exists()]
    for mark in done if array is None else spread(done):
        with suppress(FileNotFoundError):  # another rank took it
            if array is None or mark.read_text(encoding="utf-8") != _checksum(array, mark):
                mark.unlink()
                if array is not None:
                    console.print(
                        f"{path} is damaged from row {int(mark.stem):,}. It is encoded again."
                    )


def _checksum(array: Float32[np.ndarray, "texts dim"], mark: Path) -> str:
    """Return the checksum of the block that a mark is of."""
    block = array[int(mark.stem) :][: block_size(len(array))]
    return checksum_of(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)


def _marks(folder: Path, num_texts: int) -> list[Path]:
    """Return the files that say that a block is done."""
    return [folder / f"{start:012d}.sum" for start in block_starts(num_texts)]


Vectors = Float32[np.ndarray, "texts dim"] | TokenVectors | SparseVectors


def embed_once(
    model: TextEncoder,
    key: str,
    texts: Sequence[str],
    side: Side,
    cache: Path,
    *,
    shard: Shard | None = None,
    precision: Precision = "auto",
) -> Vectors:
    """Return the vectors of ``texts``, one each or several or a sparse one, mapped from files; what these lack is encoded first.

    Blocks of texts are encoded one by one, each marked when it is done, so that a killed run goes on with
    the next block and ends with the same bytes. Ranks share the blocks, and end with the bytes of one.

    Args:
        model: The encoder.
        key: Its :func:`model_key`.
        texts: In a fixed order.
        side: Whose prompt and length to use.
        cache: Folder of caches.
        shard: This process among several; the only one if None.
        precision: What the network computes in; vectors of one are not taken for those of another.
    """
    shard = shard or Shard()
    chosen = choose(precision, model.device.type)
    folder = embeddings_folder(cache, key, texts, side, chosen)
    if not isinstance(model, DenseEncoder):
        found = embed_blocks(model, texts, side, folder, shard, chosen)
        if isinstance(found, SparseVectors) and shard.is_first:
            tell_of_zeros(found, side)
        return found
    path = folder / VECTORS
    marks = _marks(folder, len(texts))
    own = marks[shard.rank :: shard.ranks]
    dim = model.dim_of(side)
    _refuse_damaged(path, own, len(texts), dim)
    _allocate(path, len(texts), dim)
    todo = [mark for mark in own if not mark.exists()]
    if todo:
        _encode(model, texts, side, path, todo, chosen)
    wait_for(marks)
    embeddings: Float32[np.ndarray, "texts dim"] = np.load(path, mmap_mode="r")
    return embeddings


def tell_of_zeros(vectors: SparseVectors, side: Side) -> None:
    """Say how many texts have no word with any weight: they are kept, and score 0 with everything."""
    if zeros := int((vectors.lengths == 0).sum()):
        console.print(f"Vectors of zeros, which score 0: {zeros:,} of {len(vectors):,} ({side})")


def _encode(
    model: DenseEncoder,
    texts: Sequence[str],
    side: Side,
    path: Path,
    marks: Sequence[Path],
    precision: Chosen,
) -> None:
    """Encode some blocks into the file and mark each when it is done."""
    array, size = np.load(path, mmap_mode="r+"), block_size(len(texts))
    slices = [slice(int(mark.stem), int(mark.stem) + size) for mark in marks]

    def write(vectors: NDArray[np.float32], where: slice, mark: Path) -> None:
        array[where] = vectors
        array.flush()
        write_file(mark, _checksum(array, mark))

    total = sum(len(texts[where]) for where in slices)
    wanted = (texts[where] for where in slices)
    with (
        progress_bar(f"Encoding {side} texts", total) as advance,
        behind(threaded=model.device.type == "cuda") as later,
    ):
        blocks = encode_pieces(
            model, wanted, side, execution=small_chunks(model), precision=precision, progress=advance
        )  # fmt: skip
        for vectors, where, mark in zip(blocks, slices, marks, strict=True):
            assert isinstance(vectors, torch.Tensor)
            later(partial(write, vectors.numpy(), where, mark))


def _allocate(path: Path, rows: int, dim: int) -> None:
    """Make an empty array file; where ranks race, one wins and the others use its file."""
    if path.exists():
        return
    with appearing(path, replace=False) as partial:
        new_array(partial, np.float32, (rows, dim))
