"""What is searched beside the documents of rows: the rest of a corpus, without what repeats them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from embedtrain.data.copies import Copies
from embedtrain.data.documents.document import Document
from embedtrain.data.examples import Example, Source
from embedtrain.data.linked_texts import node_of
from embedtrain.data.readers.rows import join_title
from embedtrain.models.build import load_encoder
from embedtrain.synthesis.corpus import cut
from embedtrain.synthesis.settings import ChunkConfig

Entry = tuple[str, str]
"""An id and a text."""


class Texts:
    """Texts by id; those that differ in case and spaces only are one."""

    def __init__(self) -> None:
        self._known: dict[int, Entry] = {}
        self._used: set[str] = set()
        self.copies: dict[str, list[str]] = {}
        """Ids of documents of a corpus that repeat a text, by the id that it has here."""

    def add(self, text: str, name: str) -> str:
        """Return the id of a text: its own, or its hash where it has none, another text has it, or no line could hold it."""
        node = node_of(text)
        if node not in self._known:
            name = name if name.isprintable() else ""  # a tab or a line's end would part a judgment
            own = name if name and name not in self._used else f"{name}#{node:016x}".lstrip("#")
            self._used.add(own)
            self._known[node] = (own, text)
        return self._known[node][0]

    def note_copy(self, name: str, document: str) -> None:
        """Note that a document repeats the text that is called ``name`` here."""
        others = self.copies.setdefault(name, [])
        if document not in (name, *others):
            others.append(document)

    def __len__(self) -> int:
        return len(self._known)

    def entries(self) -> Iterator[Entry]:
        """Yield ids and texts in the order in which they came."""
        return iter(self._known.values())


def add_beside(documents: Texts, corpus: Sequence[Document], base: str | None) -> int:
    """Add chunks of a corpus that repeat none of the documents that are there, nor a part of one; return how many.

    A repetition would be found in the place of what answers a query, and count as a wrong answer.

    Args:
        documents: Of the rows.
        corpus: To cut as ``synth`` does.
        base: The model whose tokens a chunk is counted in; None counts words.
    """
    known = list(documents.entries())
    copies = Copies(text for _, text in known)
    for chunk in cut(corpus, ChunkConfig(), None if base is None else load_encoder(base)):
        text = join_title(chunk.title, chunk.text)
        found = copies.find(text)
        name = documents.add(text, chunk.id) if found is None else known[found][0]
        if name != chunk.document:
            documents.note_copy(name, chunk.document)
    return len(documents) - len(known)


def with_texts(source: Source, corpus: Sequence[Document]) -> Source:
    """Return a source with the texts of a corpus where its rows name a document by its id."""
    texts = {one.id: text_of(one) for one in corpus}
    used = sorted({one for row in source.examples() for one in _named(row) if one in texts})
    if not used:
        return source
    key = hashlib.sha256(source.fingerprint.encode())
    for name in used:
        key.update(f"\n{name}\n{texts[name]}".encode())

    def stream() -> Iterator[Example]:
        return (
            replace(
                row,
                positives=tuple(texts.get(one, one) for one in row.positives),
                negatives=tuple(texts.get(one, one) for one in row.negatives),
                document_ids=row.document_ids
                or tuple(one if one in texts else "" for one in _named(row)),
            )
            for row in source.examples()
        )

    return replace(source, stream=stream, fingerprint=key.hexdigest())


def _named(row: Example) -> tuple[str, ...]:
    return (*row.positives, *row.negatives)


def text_of(document: Document) -> str:
    """Return a document as one text, its title before it, unless it begins with that."""
    begins = document.text.startswith(document.title)
    return document.text.strip() if begins else join_title(document.title, document.text)
