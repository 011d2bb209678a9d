"""Encode any number of texts with bounded memory: a corpus, the queries of a task, one query.

A block of texts is tokenised, sorted by length and cut by a budget of tokens. On a GPU, a thread tokenises the
next block while the device computes, and vectors travel back while it goes on: see :mod:`.overlap`, :mod:`.arrival`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import islice
from typing import Any, TypedDict, Unpack, overload

import numpy as np
import torch
from numpy.typing import NDArray

from embedtrain.encoding.arrival import Arriving, pageable
from embedtrain.encoding.overlap import ahead, behind, one_late
from embedtrain.errors import UserError
from embedtrain.models.build import load_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.packed import Texts, upload
from embedtrain.precision import Chosen, Precision, choose, computing
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import Embeddings, Side, TokenEmbeddings, TokenVectors

TEXTS_AT_ONCE = 4096
"""Texts tokenised and sorted by length together: enough to fill chunks with equal lengths."""
ON_GPU = 8192
"""The same on a GPU where a text has one vector: its chunks are larger, and it need not wait for many texts."""

DENSE_NUMBERS = 2**24
"""Numbers of sparse vectors, zeros included, that are held at once: 64 MiB, 550 texts of 30,522 words."""


class Options(TypedDict, total=False):
    """The options of :func:`encode_texts`."""

    execution: Execution | None
    precision: Precision
    at_once: int | None
    out: NDArray[Any] | None
    progress: Callable[[int], None]


@overload
def encode_texts(
    model: DenseEncoder, texts: Sequence[str], side: Side, **options: Unpack[Options]
) -> NDArray[np.float32]: ...
@overload
def encode_texts(
    model: SparseEncoder, texts: Sequence[str], side: Side, **options: Unpack[Options]
) -> SparseVectors: ...
@overload
def encode_texts(
    model: TextEncoder, texts: Sequence[str], side: Side, **options: Unpack[Options]
) -> NDArray[np.float32] | TokenVectors | SparseVectors: ...


def encode_texts(
    model: TextEncoder,
    texts: Sequence[str],
    side: Side,
    *,
    execution: Execution | None = None,
    precision: Precision = "auto",
    at_once: int | None = None,
    out: NDArray[Any] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float32] | TokenVectors | SparseVectors:
    """Encode texts under the model's own contract, in evaluation mode.

    Args:
        model: The encoder; its training mode is put back afterwards.
        texts: Texts without prompts.
        side: Decides prompt and length.
        execution: Chunk size; the default suits one CPU or one GPU.
        precision: In what the network computes, which is not what it returns; see :mod:`embedtrain.precision`.
        at_once: Texts tokenised and sorted by length together; the default suits the device.
        out: Array to fill, such as a memory-mapped file; a new one if None. For one vector per text.
        progress: Called with the number of texts each time some are done.

    Returns:
        An array of shape [texts, dim], float32; the vectors of all tokens where a text has several; or what is not 0
        where vectors are sparse.

    Raises:
        UserError: If a query is empty, a document has no token at all (not even a special one), or not
            finite embeddings come out.
    """
    blocks = encode_blocks(
        model, texts, side, execution=execution, precision=precision, at_once=at_once, progress=progress
    )  # fmt: skip
    if isinstance(model, SparseEncoder):
        return SparseVectors.joined([sparse_block(block) for block in blocks])
    if not isinstance(model, DenseEncoder):
        kept = map(pageable, blocks)
        return join_blocks([block for block in kept if isinstance(block, TokenEmbeddings)])
    if out is None:
        out = np.empty((len(texts), model.dim_of(side)), dtype=np.float32)
    fill(out, blocks, threaded=model.device.type == "cuda")
    return out


def fill(out: NDArray[Any], blocks: Iterable[Embeddings], *, threaded: bool) -> None:
    """Write blocks of vectors one after the other into an array, while the next is computed if ``threaded``."""
    start = 0
    with behind(threaded=threaded) as later:
        for block in blocks:
            assert isinstance(block, torch.Tensor)
            later(partial(np.copyto, out[start : start + len(block)], block.numpy()))
            start += len(block)


def encode_blocks(
    model: TextEncoder,
    texts: Iterable[str],
    side: Side,
    *,
    execution: Execution | None = None,
    precision: Precision = "auto",
    at_once: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Embeddings]:
    """Yield the embeddings of a few thousand texts at a time, in float32 on the CPU.

    See :func:`encode_texts`; ``texts`` may come from a file as they are needed.
    """
    if at_once is None:
        large = model.device.type == "cuda" and isinstance(model, DenseEncoder)
        at_once = ON_GPU if large else TEXTS_AT_ONCE
    if isinstance(
        model, SparseEncoder
    ):  # whole vocabularies, zeros and all, before they are thinned out
        at_once = min(at_once, max(1, DENSE_NUMBERS // model.dim))
    return encode_pieces(
        model, _cut(texts, at_once), side, execution=execution, precision=precision, progress=progress
    )  # fmt: skip


def encode_pieces(
    model: TextEncoder,
    pieces: Iterable[Sequence[str]],
    side: Side,
    *,
    execution: Execution | None = None,
    precision: Precision = "auto",
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Embeddings]:
    """Yield the embeddings of each piece: texts that are tokenised and sorted by length together.

    A text's bits may depend on the other texts of its piece, and on nothing else.
    """
    model = encoder_of(model, side)
    on_gpu = model.device.type == "cuda"
    execution = execution or default_execution(model.device)
    chosen = choose(precision, model.device.type)
    blocks = ahead(partial(_tokenize, model, side), _numbered(pieces), threaded=on_gpu)
    begun = (_begin(model, tokens, side, execution, chosen) for tokens in blocks)
    training = model.training
    model.eval()
    try:
        for arriving in one_late(begun, late=on_gpu):
            yield arriving.wait()
            progress(len(arriving))
    finally:
        model.train(training)


def encode_tokens(
    model: TextEncoder, tokens: Texts, side: Side, execution: Execution, precision: Chosen
) -> Embeddings:
    """Return the embeddings of texts that are token ids already, in float32 on the CPU.

    For whoever keeps ``encoder_of(model, side)`` in evaluation mode and has made its contract's token ids.

    Raises:
        UserError: If not finite embeddings come out.
    """
    return _begin(model, tokens, side, execution, precision).wait()


def encoder_of(model: TextEncoder, side: Side) -> TextEncoder:
    """Return what encodes a side: another model's documents where only queries were tuned."""
    if side == "document" and isinstance(model, DenseEncoder) and model.contract.document_model:
        return _document_model(model.contract.document_model)
    return model


def default_execution(device: torch.device) -> Execution:
    """Return the size of chunks that suits one CPU or one GPU."""
    return Execution(chunk_tokens=65_536 if device.type == "cuda" else 16_384)


def _begin(
    model: TextEncoder, tokens: Texts, side: Side, execution: Execution, precision: Chosen
) -> Arriving:
    with torch.no_grad(), computing(precision, model.device.type):
        embeddings = model.embed(_moved(tokens, model.device), execution, side)
    return Arriving.of(embeddings, side, precision)


def _cut(texts: Iterable[str], at_once: int) -> Iterator[list[str]]:
    source = iter(texts)
    while block := list(islice(source, at_once)):
        yield block


def _numbered(pieces: Iterable[Sequence[str]]) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield pieces, each with the number of its first text."""
    start = 0
    for piece in pieces:
        yield start, piece
        start += len(piece)


def _tokenize(model: TextEncoder, side: Side, piece: tuple[int, Sequence[str]]) -> Texts:
    start, texts = piece
    if side == "query":  # a corpus may hold empty documents: their special tokens stand for them
        _refuse_empty(texts, start)
    return model.tokenization.encode(texts, side)


def _moved(texts: Texts, device: torch.device) -> Texts:
    return Texts(upload(texts.ids, device), upload(texts.lengths, device), texts.sizes)


@lru_cache(maxsize=1)
def _document_model(path: str) -> TextEncoder:
    """Load the model that encodes the documents of one that was tuned for queries only."""
    return load_encoder(path)


def sparse_block(block: Embeddings) -> SparseVectors:
    """Keep what is not 0 of the vectors of some texts."""
    assert isinstance(block, torch.Tensor)
    return SparseVectors.of_dense(block.numpy())


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


def _refuse_empty(queries: Sequence[str], start: int) -> None:
    for row, text in enumerate(queries, start + 1):
        if not text.strip():
            raise UserError(f"query {row}", "is empty", got=text, cure="Remove it")
