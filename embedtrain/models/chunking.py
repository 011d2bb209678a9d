"""Encode many texts with the memory of a few, exactly.

The texts of a batch are sorted by length, cut into chunks of at most so many tokens, encoded one chunk at
a time and put back in order. With ``rematerialize`` a chunk keeps no activations: the backward pass encodes
it again (``torch.utils.checkpoint``, dropout replayed). That is gradient caching in one graph with one
backward, for any objective, and it is exact under every parallel strategy. Two things make it cheaper than
encoding twice: the last chunk keeps its activations (its backward pass comes first, so the peak stays
that of one chunk), and the first few recall what is dear to compute (:mod:`embedtrain.models.recall`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.checkpoint import checkpoint, noop_context_fn

from embedtrain.errors import UserError
from embedtrain.memory import Heap, is_out_of_memory, sweep
from embedtrain.models.recall import MOST_CHUNKS, recall_contexts
from embedtrain.ops.chosen_rows import chosen_rows
from embedtrain.packed import Texts
from embedtrain.progress import console
from embedtrain.types import TokenEmbeddings

Encoded = TypeVar("Encoded")
SWEPT_TOKENS = 1024
"""Of a chunk; smaller ones leave too little behind for it to be given back."""
SWEPT_BYTES = 2**25
"""Of what chunks gave, whose room is given back when it has been laid out in order."""
_heap = Heap(period=3)  # one of the process: a corpus comes in many calls


@dataclass(frozen=True)
class Execution:
    """How a batch is run; none of it changes the result.

    Attributes:
        chunk_tokens: Tokens encoded at once, padding included where there is any.
        rematerialize: Encode chunks again in the backward pass instead of keeping their activations: all of
            them (True, or 1), none (False, or 0), or the share of them that memory asks for, first chunks
            first. The last chunk never needs it.
        agree: From this process's number of chunks to the number that all processes run. Where weights are
            sharded, each chunk fetches them from the others, so all must run as many.
        recall: Keep a little of some chunks that are encoded again (:mod:`embedtrain.models.recall`). False where
            layers are compiled: what they compute inside cannot be kept.
    """

    chunk_tokens: int = 16_384
    rematerialize: bool | float = False
    agree: Callable[[int], int] | None = None
    recall: bool = True

    def num_recomputed(self, num_chunks: int) -> int:
        """Return how many chunks, from the first, the backward pass encodes again."""
        if not torch.is_grad_enabled():
            return 0
        return min(round(self.rematerialize * num_chunks), num_chunks - 1)

    def num_recalled(self, num_recomputed: int) -> int:
        """Return how many of the chunks that are encoded again, from the first, keep a little for that."""
        return min(num_recomputed, MOST_CHUNKS) if self.recall else 0


def plan_chunks(
    lengths: Int64[Tensor, " texts"], chunk_tokens: int, *, padded: bool, least: int = 0
) -> list[Int64[Tensor, " chosen"]]:
    """Return the rows of each chunk, longest texts first.

    A chunk holds at most ``chunk_tokens`` tokens, counted with padding if ``padded``, and each text as at
    least ``least`` (queries are expanded); a text longer than that is a chunk of its own. Longest first
    means the largest memory need comes first, not after an hour.
    """
    order = torch.argsort(lengths, descending=True, stable=True)
    chunks, start, tokens = [], 0, 0
    sizes = lengths[order].clamp_min(least).tolist()
    for end, length in enumerate(sizes):
        needed = (end + 1 - start) * sizes[start] if padded else tokens + length
        if end > start and needed > chunk_tokens:
            chunks.append(order[start:end])
            start, tokens = end, 0
        tokens += length
    if sizes:
        chunks.append(order[start:])
    return chunks


def plan_together(
    lengths: Int64[Tensor, " texts"], execution: Execution, *, padded: bool, least: int = 0
) -> tuple[list[Int64[Tensor, " chosen"]], int]:
    """Plan chunks, as many as the other processes run; return them and how many of the last are idle.

    Chunks are halved until there are enough. Where even single texts are not enough, the last text is
    encoded again for nothing.
    """
    chunks = plan_chunks(lengths, execution.chunk_tokens, padded=padded, least=least)
    if execution.agree is None:
        return chunks, 0
    wanted = execution.agree(len(chunks))
    while len(chunks) < wanted and max(map(len, chunks)) > 1:
        place = max(range(len(chunks)), key=lambda number: len(chunks[number]))
        rows = chunks[place]
        chunks[place : place + 1] = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    idle = wanted - len(chunks)
    return chunks + [chunks[-1][-1:]] * idle, idle


def encode_in_chunks(
    encode: Callable[[Texts], Float[Tensor, "chosen dim"]],
    texts: Texts,
    execution: Execution,
    *,
    padded: bool,
) -> Float[Tensor, "texts dim"]:
    """Encode ``texts`` chunk by chunk and return the embeddings in the order of the texts.

    Only where ``encode`` pads (``padded``) does padding count against the budget.
    """
    parts, inverse = _run(encode, texts, execution, padded=padded)
    return chosen_rows(parts, inverse)[0]


def encode_rows_in_chunks(
    encode: Callable[[Texts], Float[Tensor, "chosen dim"]],
    texts: Texts,
    execution: Execution,
    *rows: Int64[Tensor, " _"],
    padded: bool,
) -> tuple[Float[Tensor, "_ dim"], ...]:
    """Do what :func:`encode_in_chunks` does, and return the embeddings of the texts that each of ``rows``, on the CPU, names.

    There is no copy of all in between: vectors of a vocabulary's length are large.
    """
    parts, inverse = _run(encode, texts, execution, padded=padded)
    results = chosen_rows(parts, *(inverse[chosen] for chosen in rows))
    size = sum(part.nbytes for part in parts)
    parts.clear()
    if size > SWEPT_BYTES and texts.ids.device.type == "cpu":
        sweep()
    return results


def encode_tokens_in_chunks(
    encode: Callable[[Texts], TokenEmbeddings],
    texts: Texts,
    execution: Execution,
    *,
    padded: bool,
    least: int = 0,
) -> TokenEmbeddings:
    """Do what :func:`encode_in_chunks` does where a text has several vectors.

    ``least`` is the length to which ``encode`` expands shorter texts.
    """
    parts, inverse = _run(encode, texts, execution, padded=padded, least=least)
    ids, cls, gates = (
        None if getattr(parts[0], name) is None else torch.cat([getattr(p, name) for p in parts])
        for name in ("ids", "cls", "gates")
    )
    tokens = torch.cat([part.tokens for part in parts])
    lengths = torch.cat([part.lengths for part in parts])
    sizes = torch.cat([part.sizes for part in parts])
    together = TokenEmbeddings(tokens, lengths, ids, cls, parts[0].exact_match, gates, sizes)
    return together.select(inverse)


def computed_again(
    function: Callable[..., Encoded], *inputs: object, on_device: Tensor, recall: bool = False
) -> Encoded:
    """Call ``function`` now and once more in the backward pass, which draws the same random numbers.

    torch replays the random numbers of the devices whose tensors are among the arguments. It does not look into our
    values, so ``on_device`` is any tensor where they are. ``recall``: see :class:`Execution`.
    """

    def run(_: Tensor, *inputs: object) -> Encoded:
        return function(*inputs)

    contexts = recall_contexts if recall else noop_context_fn
    result: Encoded = checkpoint(run, on_device, *inputs, use_reentrant=False, context_fn=contexts)
    return result


def _run(
    encode: Callable[[Texts], Encoded],
    texts: Texts,
    execution: Execution,
    *,
    padded: bool,
    least: int = 0,
) -> tuple[list[Encoded], Int64[Tensor, " texts"]]:
    """Encode all chunks; return their results and where each text stands among them, on the CPU."""
    if not torch.is_grad_enabled() and execution.agree is None:
        return _run_within_memory(encode, texts, execution, padded=padded, least=least)
    chunks, idle = plan_together(texts.sizes, execution, padded=padded, least=least)
    again = execution.num_recomputed(len(chunks))
    sweeper = _Sweeper(execution.chunk_tokens, texts.ids.device)

    def encode_swept(chunk: Texts) -> Encoded:
        sweeper.next_chunk()
        return encode(chunk)

    parts: list[Encoded] = []
    for number, rows in enumerate(chunks, 1):
        chunk = texts.select(rows)
        if number <= again:
            recall = number <= execution.num_recalled(again)
            parts.append(computed_again(encode_swept, chunk, on_device=chunk.ids, recall=recall))
        else:
            parts.append(encode(chunk))
    sweeper.goes_back = True
    for _ in range(idle):
        parts[0] = _add_nothing(parts[0], parts.pop())
        chunks.pop()
    return parts, torch.cat(chunks).argsort()


class _Sweeper:
    """Gives the system what chunks leave free in the heap of a CPU.

    What they keep till the backward pass, however small, lies in the room of large blocks, and new ones do not fit there.
    Some of it is given back every third chunk, and all before each is encoded again, which takes the most.
    """

    def __init__(self, chunk_tokens: int, device: torch.device) -> None:
        self._acts = device.type == "cpu" and chunk_tokens >= SWEPT_TOKENS
        self.goes_back = False

    def next_chunk(self) -> None:
        """Look at the heap before a chunk is encoded."""
        if self._acts and self.goes_back:
            sweep()
        elif self._acts:
            _heap.step_done()


def _run_within_memory(
    encode: Callable[[Texts], Encoded],
    texts: Texts,
    execution: Execution,
    *,
    padded: bool,
    least: int = 0,
) -> tuple[list[Encoded], Int64[Tensor, " texts"]]:
    """Do what :func:`_run` does where no gradient is kept; what does not fit is encoded in smaller chunks.

    Raises:
        UserError: If not even one text fits.
    """
    lengths, size = texts.sizes, execution.chunk_tokens
    todo = plan_chunks(lengths, size, padded=padded, least=least)
    parts: list[Encoded] = []
    done: list[Tensor] = []
    while todo:
        try:
            parts.append(encode(texts.select(todo[0])))
            done.append(todo.pop(0))
            if texts.ids.device.type == "cpu":
                _heap.step_done()
            continue
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            problem = str(error)
        # Only here has the traceback let go of what the failed chunk had computed.
        if len(todo[0]) == 1:
            raise UserError(
                f"a text of {int(lengths[todo[0]])} tokens",
                "does not fit into memory",
                got=problem,
                cure="Lower the length of its side, or free some memory",
            )
        size = min(size, int(lengths[todo[0]].clamp_min(least).sum())) // 2
        console.print(f"Memory ran out; encoding goes on with {size:,} tokens at once")
        rest = torch.cat(todo)
        todo = [rest[rows] for rows in plan_chunks(lengths[rest], size, padded=padded, least=least)]
        if texts.ids.device.type == "cuda":
            torch.cuda.empty_cache()
        else:
            sweep()
    return parts, torch.cat(done).argsort()


def _add_nothing(part: Encoded, idle: Encoded) -> Encoded:
    """Let the backward pass reach what an idle chunk computed, with a gradient of zero."""
    if isinstance(part, TokenEmbeddings) and isinstance(idle, TokenEmbeddings):
        return replace(part, tokens=part.tokens + 0 * idle.tokens.sum())
    return part + 0 * idle.sum()  # type: ignore[attr-defined, no-any-return]
