"""What is searched beside the documents of rows: the rest of a corpus, without what repeats them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from embedtrain.data.copies import Copies
from embedtrain.data.documents.document import Document
from embedtrain.data.examples import Example, Source
from embedtrain.data.linked_texts import node_of
from embedtrain.data.readers.rows import join_title
from embedtrain.errors import UserError
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
        self.copies: dict[str, dict[str, None]] = {}
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

    def find(self, *texts: str) -> str | None:
        """Return the id of the first of these texts that is known; None where none is."""
        found = (self._known.get(node_of(text)) for text in texts)
        return next((entry[0] for entry in found if entry is not None), None)

    def note_copy(self, name: str, document: str) -> None:
        """Note that a document repeats the text that is called ``name`` here."""
        if document != name:
            self.copies.setdefault(name, {})[document] = None

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
    names = {name for name, _ in known}
    copies = Copies(text for _, text in known)
    for chunk in cut(corpus, ChunkConfig(), None if base is None else load_encoder(base)):
        text = join_title(chunk.title, chunk.text)
        same = documents.find(text, chunk.text)
        found = [same] if same else [known[place][0] for place in copies.find(text)]
        if not found and chunk.document not in names:  # those are there as a whole
            found = [documents.add(text, chunk.id)]
        for name in found:
            documents.note_copy(name, chunk.document)
    return len(documents) - len(known)


def with_texts(source: Source, corpus: Sequence[Document]) -> Source:
    """Return a source with the texts of a corpus where its rows name their answers by ids.

    They do if every answer is a single word and one of them is an id; negatives may be either.

    Raises:
        UserError: If an answer is no id where others are.
    """
    texts = {one.id: text_of(one) for one in corpus}
    answers = dict.fromkeys(one for row in source.examples() for one in row.positives)
    are_words = all(one.split() == [one] for one in answers)
    if texts.keys().isdisjoint(answers) or not are_words:
        return source
    if strangers := [one for one in answers if one not in texts]:
        cure = "Write the id of a document, which is its file's path in CORPUS, or its text in every row"
        raise UserError(
            source.place, "is answered by a document that is not there", got=strangers[0], cure=cure
        )

    def read(row: Example) -> Example:
        named = (*row.positives, *row.negatives)
        shown = [texts.get(one, one) for one in named]
        middle = len(row.positives)
        ids = tuple(one if one in texts else "" for one in named)
        return replace(
            row,
            positives=tuple(shown[:middle]),
            negatives=tuple(shown[middle:]),
            document_ids=row.document_ids or ids,
        )

    key = hashlib.sha256(source.fingerprint.encode())
    for one in corpus:
        key.update(f"\n{one.id}\n{texts[one.id]}".encode(errors="surrogatepass"))
    return replace(source, stream=lambda: map(read, source.examples()), fingerprint=key.hexdigest())


def text_of(document: Document) -> str:
    """Return a document as one text, its title before it, unless it begins with that."""
    begins = document.text.startswith(document.title)
    return document.text.strip() if begins else join_title(document.title, document.text)
