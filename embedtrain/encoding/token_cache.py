"""Several vectors per text of a corpus, computed once per weights, memory-mapped, resumed after a kill."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from embedtrain.encoding.cache import embeddings_folder
from embedtrain.encoding.shards import Shard, wait_for
from embedtrain.encoding.texts import TEXTS_AT_ONCE, encode_texts
from embedtrain.models.encoder import TextEncoder
from embedtrain.progress import progress_bar
from embedtrain.retrieval.late_interaction.exact import ExactIndex
from embedtrain.retrieval.late_interaction.index_folder import (
    ARRAYS,
    MANIFEST,
    new_folder,
    read_manifest,
    write_manifest,
)
from embedtrain.types import Side, TokenVectors


def embed_tokens_once(
    model: TextEncoder,
    key: str,
    texts: Sequence[str],
    side: Side,
    cache: Path,
    *,
    shard: Shard,
    precision: str,
) -> TokenVectors:
    """Return the vectors of ``texts`` mapped from files; what the files lack is encoded first.

    Like :func:`embedtrain.encoding.cache.embed_once`; because nobody knows beforehand how many
    vectors a block of texts has, each block is a folder of its own, and the first rank joins them.
    """
    folder = embeddings_folder(cache, key, texts, side, precision)
    joined = folder / "joined"
    starts = range(0, len(texts), TEXTS_AT_ONCE)
    blocks = [folder / f"{start:012d}" for start in starts]
    autocast = torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16")
    if not (joined / MANIFEST).is_file():
        with progress_bar(f"Encoding {side} texts", len(texts)) as advance, autocast:
            for number, start in enumerate(starts):
                if shard.takes(number) and not (blocks[number] / MANIFEST).is_file():
                    block = texts[start : start + TEXTS_AT_ONCE]
                    vectors = encode_texts(model, block, side, progress=advance)
                    assert isinstance(vectors, TokenVectors)
                    ExactIndex(vectors).save(blocks[number])
        if shard.is_first:
            wait_for([block / MANIFEST for block in blocks])
            _join(blocks, joined)
    wait_for([joined / MANIFEST])
    return ExactIndex.load(joined).documents


def _join(blocks: Sequence[Path], joined: Path) -> None:
    """Write the arrays of all blocks behind one another, a block in memory at a time."""
    exact_match = read_manifest(blocks[0])["exact_match"]
    with new_folder(joined) as partial:
        for name in ARRAYS:
            paths = [block / f"{name}.npy" for block in blocks]
            if not paths[0].is_file():
                continue
            parts = [np.load(path, mmap_mode="r") for path in paths]
            shape = (sum(map(len, parts)), *parts[0].shape[1:])
            whole = np.lib.format.open_memmap(
                partial / f"{name}.npy", mode="w+", dtype=parts[0].dtype, shape=shape
            )
            start = 0
            for part in parts:
                whole[start : start + len(part)] = part
                start += len(part)
            whole.flush()
        write_manifest(partial, "exact", {"exact_match": exact_match})
    for block in blocks:
        shutil.rmtree(block)
