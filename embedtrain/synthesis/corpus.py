"""A corpus as queries are written for it: documents, their chunks, and the chunks that are chosen."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embedtrain.data.documents.document import Chunk, Document
from embedtrain.data.documents.folder import Reading
from embedtrain.data.documents.splitter import CountTokens, split
from embedtrain.data.words import WORD
from embedtrain.errors import UserError
from embedtrain.models.encoder import TextEncoder
from embedtrain.progress import progress_bar
from embedtrain.synthesis.choice import Choice, choose, in_parts
from embedtrain.synthesis.settings import ChunkConfig, SynthesisConfig

SPECIAL_TOKENS = 2
"""Tokens that a model puts around a text."""


@dataclass(frozen=True)
class Corpus:
    """Documents, their chunks, and those that queries are written for."""

    documents: list[Document]
    chunks: list[Chunk]
    choice: Choice
    reading: Reading
    num_parts: int
    digest: str

    def figures(self) -> dict[str, Any]:
        """Return what the report says of it."""
        return {
            "reading": self.reading.model_dump(),
            "documents": len(self.documents),
            "parts": self.num_parts,
            "chunks": len(self.chunks),
            "chosen_chunks": len(self.choice.chunks),
            "left_out": self.choice.left_out,
        }


def cut_corpus(
    documents: list[Document], reading: Reading, config: SynthesisConfig, base: TextEncoder | None
) -> Corpus:
    """Cut documents and choose the chunks that queries are written for; ``base`` counts tokens, words without it.

    Raises:
        UserError: If two chunks get one id.
    """
    chunks, num_parts = in_parts(cut(documents, config.chunks, base), len(documents))
    digest = hashlib.sha256()
    for document in documents:
        digest.update(json.dumps([document.id, document.title, document.text]).encode())
    choice = choose(chunks, config)
    return Corpus(documents, chunks, choice, reading, num_parts, digest.hexdigest())


def cut(
    documents: Sequence[Document], config: ChunkConfig, base: TextEncoder | None
) -> list[Chunk]:
    """Cut documents; ``base`` counts tokens, words without it.

    Raises:
        UserError: If two chunks get one id.
    """
    count, chunks = _counter(base), list[Chunk]()
    with progress_bar("Cutting documents", len(documents)) as advance:
        for document in documents:
            chunks += split(document, _length(document, config, count), count)
            advance(1)
    _refuse_twice(chunks)
    return chunks


def _refuse_twice(chunks: list[Chunk]) -> None:
    """Refuse a document that is called as a chunk of another one is."""
    counts = Counter(chunk.id for chunk in chunks)
    if len(counts) < len(chunks):
        name = next(name for name, count in counts.items() if count > 1)
        cure = "Rename the document: #1 and so on name the chunks of another one"
        raise UserError("the corpus", "gives two chunks one id", got=name, cure=cure)


def _length(document: Document, config: ChunkConfig, count: CountTokens) -> int | None:
    """Return the room for a text beside its title, at least half of the length."""
    length = config.length
    if length is None:
        return None
    title = count(document.title) if config.title and document.title else 0
    return max(length - title - SPECIAL_TOKENS, length // 2, 1)


def _counter(base: TextEncoder | None) -> CountTokens:
    """Count tokens as the base model does, or words where there is none."""
    if base is None:
        return lambda text: len(WORD.findall(text))
    tokenizer = base.tokenization.tokenizer
    return lambda text: len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
