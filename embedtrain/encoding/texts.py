"""Encode any number of texts with bounded memory: a corpus, the queries of a task, one query."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypedDict, Unpack, overload

import numpy as np
import torch
from numpy.typing import NDArray

from embedtrain.errors import UserError
from embedtrain.memory import Heap
from embedtrain.models.build import load_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.encoder import TextEncoder
from embedtrain.types import Embeddings, Side, TokenEmbeddings, TokenVectors

TEXTS_AT_ONCE = 4096
"""Texts tokenised and sorted by length together: enough to fill chunks with equal lengths."""

_heap = Heap()  # one of the process: a corpus comes in many calls


class Options(TypedDict, total=False):
    """The options of :func:`encode_texts`."""

    execution: Execution | None
    out: NDArray[Any] | None
    progress: Callable[[int], None]


@overload
def encode_texts(
    model: DenseEncoder, texts: Sequence[str], side: Side, **options: Unpack[Options]
) -> NDArray[np.float32]: ...
@overload
def encode_texts(
    model: TextEncoder, texts: Sequence[str], side: Side, **options: Unpack[Options]
) -> NDArray[np.float32] | TokenVectors: ...


def encode_texts(
    model: TextEncoder,
    texts: Sequence[str],
    side: Side,
    *,
    execution: Execution | None = None,
    out: NDArray[Any] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float32] | TokenVectors:
    """Encode texts under the model's own contract, in evaluation mode.

    Args:
        model: The encoder; its training mode is put back afterwards.
        texts: Texts without prompts.
        side: Decides prompt and length.
        execution: Chunk size; the default suits one CPU or one GPU.
        out: Array to fill, such as a memory-mapped file; a new one if None. For one vector per text.
        progress: Called with the number of texts each time some are done.

    Returns:
        An array of shape [texts, dim], or the vectors of all tokens where a text has several.

    Raises:
        UserError: If a query is empty, a document has no token at all (not even a special one), or not
            finite embeddings come out.
    """
    blocks = encode_blocks(model, texts, side, execution=execution, progress=progress)
    if not isinstance(model, DenseEncoder):
        return join_blocks([block for block in blocks if isinstance(block, TokenEmbeddings)])
    if out is None:
        out = np.empty((len(texts), model.dim), dtype=np.float32)
    start = 0
    for block in blocks:
        assert isinstance(block, torch.Tensor)
        out[start : start + len(block)] = block.numpy()
        start += len(block)
    return out


def encode_blocks(
    model: TextEncoder,
    texts: Sequence[str],
    side: Side,
    *,
    execution: Execution | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Embeddings]:
    """Yield the embeddings of a few thousand texts at a time, in float32 on the CPU."""
    execution = execution or Execution(chunk_tokens=16_384)
    if side == "document" and isinstance(model, DenseEncoder) and model.contract.document_model:
        model = _document_model(model.contract.document_model)
    training = model.training
    model.eval()
    try:
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            block = texts[start : start + TEXTS_AT_ONCE]
            if (
                side == "query"
            ):  # a corpus may hold empty documents: their special tokens stand for them
                _refuse_empty(block, start)
            tokens = model.tokenization.encode(block, side).to(model.device)
            with torch.no_grad():  # a decorator would leave a generator that is paused without it
                embeddings = _float32(model.embed(tokens, execution, side))
            vectors = embeddings if isinstance(embeddings, torch.Tensor) else embeddings.tokens
            if not vectors.isfinite().all():
                raise UserError(
                    f"{side} embeddings", "are not finite", cure="The weights hold NaN: train again"
                )
            yield embeddings
            progress(len(block))
            _heap.step_done()
    finally:
        model.train(training)


@lru_cache(maxsize=1)
def _document_model(path: str) -> TextEncoder:
    """Load the model that encodes the documents of one that was tuned for queries only."""
    return load_encoder(path)


def join_blocks(blocks: Sequence[TokenEmbeddings]) -> TokenVectors:
    """Lay the vectors of several blocks of texts end to end as arrays."""
    arrays = [
        None
        if getattr(blocks[0], name) is None
        else np.concatenate([getattr(b, name) for b in blocks])
        for name in ("tokens", "lengths", "ids", "cls")
    ]
    values, lengths, ids, cls = arrays
    assert values is not None
    assert lengths is not None
    return TokenVectors(values, lengths, ids, cls, blocks[0].exact_match)


def _float32(embeddings: Embeddings) -> Embeddings:
    if isinstance(embeddings, TokenEmbeddings):
        moved = embeddings.to("cpu")
        cls = None if moved.cls is None else moved.cls.float()
        return replace(moved, tokens=moved.tokens.float(), cls=cls, gates=None)
    return embeddings.float().cpu()


def _refuse_empty(queries: Sequence[str], start: int) -> None:
    for row, text in enumerate(queries, start + 1):
        if not text.strip():
            raise UserError(f"query {row}", "is empty", got=text, cure="Remove it")
