"""Which chunks queries are written for: those that say something, once each, spread over their document."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from embedtrain.data.documents.document import Chunk
from embedtrain.data.draw import number
from embedtrain.mining.identity import text_digest
from embedtrain.synthesis.settings import SynthesisConfig

FEWEST_LETTERS = 0.3
"""Share of a text's characters that are letters; below it is a table of numbers."""
LETTER = re.compile(r"[^\W\d_]")
FEW_DOCUMENTS = 20
"""Of fewer documents none can be held out; their parts are taken for documents then."""
PART = 16
"""Chunks of such a part."""


@dataclass(frozen=True)
class Choice:
    """Chunks that queries are written for, and how many were left out, by reason."""

    chunks: list[Chunk]
    left_out: dict[str, int]


def choose(chunks: Sequence[Chunk], config: SynthesisConfig) -> Choice:
    """Choose chunks: so many of each document as its queries need, spread evenly over it.

    If there were more queries than wanted in all, documents are drawn, by a hash of their names, not chunks: else long
    documents would be most of what is trained.
    """
    counts: Counter[str] = Counter()
    seen: set[bytes] = set()
    documents: dict[str, list[Chunk]] = {}
    for chunk in chunks:
        reason = _flaw(chunk, config, seen)
        counts[reason] += 1
        if not reason:
            documents.setdefault(chunk.unit, []).append(chunk)
    wanted = -(-config.per_document // config.per_chunk)
    spread = {name: _spread(own, wanted) for name, own in documents.items()}
    chosen, left = set(), config.limit
    for name in sorted(spread, key=lambda name: (number(config.seed, "limit", name), name)):
        if left > 0:
            chosen.add(name)
        left -= config.per_chunk * len(spread[name])
    result = [chunk for name, own in spread.items() if name in chosen for chunk in own]
    left_out = {reason: count for reason, count in counts.items() if reason}
    left_out["caps"] = counts[""] - len(result)
    return Choice(result, left_out)


def in_parts(chunks: Sequence[Chunk], num_documents: int) -> tuple[list[Chunk], int]:
    """Take runs of chunks for documents where there are too few to hold some out, such as one giant file.

    Returns the chunks and the number of parts; 0 if the documents stay what they are.
    """
    if num_documents >= FEW_DOCUMENTS:
        return list(chunks), 0
    counts: Counter[str] = Counter()
    parts = []
    for chunk in chunks:
        parts.append(replace(chunk, part=counts[chunk.document] // PART + 1))
        counts[chunk.document] += 1
    names = {chunk.unit for chunk in parts}
    return (parts, len(names)) if len(names) > num_documents else (list(chunks), 0)


def _flaw(chunk: Chunk, config: SynthesisConfig, seen: set[bytes]) -> str:
    if len(chunk.text) < config.chunks.min_characters:
        return "short"
    if len(LETTER.findall(chunk.text)) < FEWEST_LETTERS * len(chunk.text):
        return "few_letters"
    digest = text_digest(chunk.text)
    if digest in seen:
        return "repeated"
    seen.add(digest)
    return ""


def _spread(chunks: Sequence[Chunk], wanted: int) -> list[Chunk]:
    if len(chunks) <= wanted:
        return list(chunks)
    return [chunks[place * len(chunks) // wanted] for place in range(wanted)]
