"""Workflow: documents are encoded and written into a collection of an engine, which is then searched as we search."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from embedtrain.contract.context import refuse_alone
from embedtrain.encoding.cache import embed_once, model_key
from embedtrain.encoding.shards import current_shard
from embedtrain.encoding.texts import encode_texts
from embedtrain.engines.engine import (
    Document,
    Engine,
    Entries,
    Record,
    Row,
    Vectors,
    is_empty,
    num_bytes,
    rows_of,
)
from embedtrain.engines.layout import Layout, Store, VectorField, refuse_beyond, refuse_other
from embedtrain.engines.open import open_engine
from embedtrain.errors import UserError
from embedtrain.evaluation.tasks.subject import kind_of
from embedtrain.files import default_cache
from embedtrain.models.build import load_encoder
from embedtrain.models.dense.pair_head import refuse_interaction
from embedtrain.models.encoder import TextEncoder
from embedtrain.precision import Precision
from embedtrain.progress import progress_bar
from embedtrain.retrieval.indexes import Kind
from embedtrain.stopping import SAME_COMMAND, going_on
from embedtrain.workflows.encode.file import refuse_more_than_vectors
from embedtrain.workflows.load.corpus import Entry, count_corpus, read_corpus, slices_of
from embedtrain.workflows.load.verify import Agreement, choose_queries, compare, find_here

NAMES: Mapping[Kind, str] = {"dense": "dense", "late_interaction": "late", "sparse": "sparse"}
"""Of the vectors in a collection; a second model of a kind gets a number behind."""
AT_ONCE = 65_536
"""Documents encoded together and kept in the cache together: only those of changed ones are encoded again."""
BATCH_BYTES = 2**23
"""Bytes sent at once: what engines take in one request, however long texts are."""


@dataclass(frozen=True)
class Wish:
    """How documents are to be loaded."""

    store: Store = "float32"
    """How the engine keeps the numbers."""
    column: str | None = None
    """Of the text; None looks for the usual ones."""
    texts: bool = True
    """Whether texts are kept beside their vectors."""
    prune: bool = False
    """Whether documents that are not in the corpus are removed from the collection."""
    num_queries: int = 50
    """Queries that are searched in the engine and here, when all is loaded."""
    precision: Precision = "auto"


@dataclass
class Loaded:
    """What a loading did."""

    place: str
    num_documents: int
    """Of the corpus."""
    written: int = 0
    unchanged: int = 0
    """Documents that were there already, with the same text, metadata and model."""
    removed: int = 0
    count: int = 0
    """Documents of the collection in the end."""
    left_out: list[str] = field(default_factory=list)
    """Ids of documents of which a model made nothing, and the engine holds no nothing."""
    zeros: int = 0
    """Documents whose vector is all zeros; they are kept, and score 0."""
    agreement: list[Agreement] = field(default_factory=list)
    is_without_words: bool = False
    """Whether nothing was searched, since no text holds a word."""


@dataclass(frozen=True)
class Source:
    """A model and the field that its vectors go into."""

    encoder: TextEncoder
    field: VectorField

    def encode(self, texts: Sequence[str], precision: Precision) -> Vectors:
        """Return the vectors of documents, from the cache where it has them."""
        key, cache = self.field.model, default_cache()
        return embed_once(self.encoder, key, texts, "document", cache, precision=precision)


@going_on(SAME_COMMAND)
def load(models: Sequence[str], corpus: str, url: str, wish: Wish | None = None) -> Loaded:
    """Load a corpus into the collection that an address names.

    Documents go in by their ids: one that is there with the same content is passed over, another one replaced. So a
    loading that was ended goes on, and a second one changes nothing.

    Args:
        models: Folders, runs' ``model/`` or Hub ids; each fills a field of vectors of its own.
        corpus: A BEIR folder, ``python_docs``, or a ``.jsonl``, ``.parquet`` or text file.
        url: Of the collection; see :data:`embedtrain.engines.open.ENGINES`.
        wish: How.

    Raises:
        UserError: If the engine is down, refuses, or cannot hold the vectors; if the collection belongs to another
            model; if a document is not usable; or if the engine scores otherwise than the model does.
    """
    wish = wish or Wish()
    if current_shard().ranks > 1:
        raise UserError("load", "runs in one process", cure="Start it without torchrun")
    number = count_corpus(corpus, wish.column)
    with open_engine(url, writes=True) as engine:
        held = engine.describe()
        sources = open_sources(models, wish.store)
        layout = Layout(fields=tuple(one.field for one in sources), texts=wish.texts)
        refuse_beyond(engine.place, engine.abilities, layout)
        if held is not None:
            refuse_other(engine.place, held, layout)
        engine.settle(layout)
        work = _Loading(engine, sources, wish, Loaded(engine.place, number))
        with progress_bar(f"Loading into {engine.place}", number) as advance:
            for entries in slices_of(read_corpus(corpus, wish.column), AT_ONCE):
                work.write(entries, advance)
        if wish.prune:
            work.prune()
        engine.settle(layout.model_copy(update={"is_finished": True}))
        work.done.count = engine.count()
        if wish.num_queries:
            with _half_filled_again(engine, layout):
                work.verify(choose_queries(corpus, wish.column, number, wish.num_queries))
    return work.done


@contextmanager
def _half_filled_again(engine: Engine, layout: Layout) -> Iterator[None]:
    """Let nobody search a collection whose verification fails."""
    try:
        yield
    except UserError:
        with suppress(UserError):
            engine.settle(layout)
        raise


class _Loading:
    """One loading, slice by slice."""

    def __init__(self, engine: Engine, sources: Sequence[Source], wish: Wish, done: Loaded) -> None:
        self.engine, self.sources, self.wish, self.done = engine, sources, wish, done
        self._ids: list[list[str]] = []
        self._vectors: list[list[Vectors]] = []
        """Of each slice and model: mapped from the cache, for the comparison."""
        fields = [one.field for one in sources]
        self._content = " ".join(f"{one.name} {one.model} {one.store}" for one in fields)

    def write(self, entries: Sequence[Entry], advance: Callable[[int], None]) -> None:
        """Encode some documents, and write those that the engine lacks."""
        texts = [entry.text for entry in entries]
        self._ids.append([entry.id for entry in entries])
        self._vectors.append([one.encode(texts, self.wish.precision) for one in self.sources])
        there = self.engine.hashes(self._ids[-1])
        rows = zip(*map(rows_of, self._vectors[-1]), strict=True)
        before = self.done.written
        for batch in batches(self._records(entries, rows, there)):
            self.engine.write(batch)
            self.done.written += len(batch)
            advance(len(batch))
        left = [one for one in self.done.left_out if one in there]
        if left:  # what they were before is no longer in the corpus
            self.engine.delete(left)
            self.done.removed += len(left)
        advance(len(entries) - (self.done.written - before))

    def _records(
        self,
        entries: Sequence[Entry],
        rows: Iterator[tuple[Row, ...]],
        there: Mapping[str, str],
    ) -> Iterator[Record]:
        """Yield the documents that are to be written; count the others."""
        names = [one.field.name for one in self.sources]
        kinds = [one.field.kind for one in self.sources]
        for entry, own in zip(entries, rows, strict=True):
            if any(
                is_empty(row) and kind not in self.engine.takes_empty
                for kind, row in zip(kinds, own, strict=True)
            ):
                self.done.left_out.append(entry.id)
                continue
            self.done.zeros += any(map(_is_zero, own))
            content = entry.hash(f"{self._content} {self.wish.texts}")
            if there.get(entry.id) == content:
                self.done.unchanged += 1
                continue
            text = entry.text if self.wish.texts else None
            document = Document(entry.id, text, entry.metadata, content)
            yield Record(document, dict(zip(names, own, strict=True)))

    def prune(self) -> None:
        """Remove the documents of the collection that the corpus does not have."""
        corpus = {one for ids in self._ids for one in ids} - set(self.done.left_out)
        others = [one for one in self.engine.ids() if one not in corpus]
        if others:
            self.engine.delete(others)
        self.done.removed += len(others)

    def verify(self, queries: Sequence[str]) -> None:
        """Search in the engine and here, and keep how far they agree.

        Raises:
            UserError: If documents are missing there, or the same ones have other scores.
        """
        left = frozenset(self.done.left_out)
        others = self.done.count - (self.done.num_documents - len(left))
        if others < 0:
            raise UserError(
                self.engine.place, "holds fewer documents than were loaded", got=f"{-others:,} fewer",
                cure="Start the same command again",
            )  # fmt: skip
        self.done.is_without_words = not queries
        if not queries:
            return
        for place, one in enumerate(self.sources):
            asked = encode_texts(one.encoder, queries, "query", precision=self.wish.precision)
            parts = [
                (ids, vectors[place]) for ids, vectors in zip(self._ids, self._vectors, strict=True)
            ]
            device = one.encoder.device
            ours = find_here(asked, parts, left, device)
            found = compare(self.engine, one.field, asked, ours, others)
            self.done.agreement.append(found)


def open_sources(models: Sequence[str], store: Store = "float32") -> list[Source]:
    """Load models, and say what their vectors are.

    Raises:
        UserError: If one has what no engine holds, or comes twice.
    """
    sources: list[Source] = []
    for name in models:
        encoder = load_encoder(name)
        refuse_interaction(encoder, "load")
        refuse_alone(encoder.contract, "load")
        refuse_more_than_vectors(encoder, "--into")
        kind, key = kind_of(encoder), model_key(encoder)
        if key in [one.field.model for one in sources]:
            raise UserError("--with", "names a model twice", got=name, cure="Leave it out")
        taken = sum(one.field.kind == kind for one in sources)
        contract = encoder.contract
        field_ = VectorField(
            name=NAMES[kind] + (str(taken + 1) if taken else ""),
            kind=kind,
            dim=encoder.dim,
            similarity=contract.similarity,
            model=key,
            model_name=name,
            contract=contract.model_dump(mode="json"),
            store=store,
        )
        sources.append(Source(encoder, field_))
    return sources


def batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Yield documents that together are about :data:`BATCH_BYTES` long."""
    batch: list[Record] = []
    size = 0
    for record in records:
        length = num_bytes(record)
        if batch and size + length > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += length
    if batch:
        yield batch


def _is_zero(row: Row) -> bool:
    """Whether one vector says nothing: its score is 0 with every query."""
    return is_empty(row) if isinstance(row, Entries) else row.ndim == 1 and not row.any()
