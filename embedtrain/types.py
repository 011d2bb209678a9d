"""The values that travel between the layers, and the legend of axis names.

Axis names, everywhere in the package: ``queries`` B, ``documents`` N (all candidates of a batch),
``positives`` P, ``known`` K (known positives of a query), ``texts`` (texts of one side), ``tokens`` T,
``dim`` D, ``vocabulary`` V.

Documents of a batch are *query-major*: the group of query 0 first, in each group the positives before
the negatives. Ids are 63-bit hashes of the text that is encoded, so two rows with the same text have the
same id; -1 fills unused places.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from embedtrain.bank_types import Bank
from embedtrain.code_types import SparseCode, WordPrediction
from embedtrain.interaction_types import Interaction
from embedtrain.packed import HasLengths, Movable, Texts, token_places, upload

Side = Literal["query", "document"]
Similarity = Literal["cosine", "dot"]
Format = Literal["int8", "binary", "ternary"]
"""What is stored of each number of a vector."""


@dataclass(frozen=True)
class Relevance(Movable):
    """What is known about which candidate answers which query; it decides who is a negative of whom.

    ``positives`` holds columns of the candidate axis (``-1`` unused; the first is always used).
    ``owners`` is the row of the query that brought a candidate into the batch, -1 where none did. A candidate whose id is in
    ``known_positives`` of a query is never that query's negative. ``teacher_gram`` holds the cosines that a teacher
    sees between the documents that a query brought, in the order of the batch; other ranks need none of them.
    ``query_owners`` is the row of the query whose candidates are a query's own, where several share them. A guide
    looks texts up by their ids, or by ``query_guide_ids`` and ``document_guide_ids`` where it reads others in their
    place (:mod:`embedtrain.data.guide_texts`).
    """

    query_ids: Int64[Tensor, " queries"]
    document_ids: Int64[Tensor, " documents"]
    owners: Int64[Tensor, " documents"]
    positives: Int64[Tensor, "queries positives"]
    known_positives: Int64[Tensor, "queries known"]
    teacher_scores: Float[Tensor, " documents"] | None = None
    teacher_gram: Float[Tensor, "queries group group"] | None = None
    query_owners: Int64[Tensor, " queries"] | None = None
    query_guide_ids: Int64[Tensor, " queries"] | None = None
    document_guide_ids: Int64[Tensor, " documents"] | None = None

    @property
    def own_rows(self) -> Int64[Tensor, " queries"]:
        """The row that ``owners`` has for each query's own candidates: its own, unless they are shared."""
        if self.query_owners is not None:
            return self.query_owners
        return torch.arange(len(self.query_ids), device=self.query_ids.device)

    @property
    def answers(self) -> Int64[Tensor, "queries relevant"]:
        """Ids of the documents that are known to answer each query, those of ``positives`` first, -1 unused."""
        columns = self.positives
        own = self.document_ids[columns.clamp_min(0)].masked_fill(columns < 0, -1)
        return torch.cat([own, self.known_positives], 1)


@dataclass(frozen=True)
class RetrievalBatch(Movable):
    """Queries and their candidates, each distinct text once.

    ``queries``/``documents`` hold distinct texts; ``query_rows[i]``/``document_rows[j]`` say which of them
    query ``i``/candidate ``j`` is, so that a text which occurs twice is encoded once.
    """

    queries: Texts
    documents: Texts
    query_rows: Int64[Tensor, " queries"]
    document_rows: Int64[Tensor, " documents"]
    relevance: Relevance
    source: int = 0


@dataclass(frozen=True)
class TokenEmbeddings(HasLengths, Movable):
    """Several vectors per text, laid end to end: what late interaction compares. No padding exists.

    ``ids`` says which token, or which word where words are compared, each vector stands for. ``cls`` is
    one more vector per text whose inner product is added to the score (ColBERTer). With ``exact_match``
    vectors of different ids have similarity 0. ``gates`` are the factors that a learned gate gave each
    vector; training pays for them, scores do not need them.
    """

    tokens: Float[Tensor, "tokens dim"]
    lengths: Int64[Tensor, " texts"]
    ids: Int64[Tensor, " tokens"] | None = None
    cls: Float[Tensor, "texts cls_dim"] | None = None
    exact_match: bool = False
    gates: Float[Tensor, " tokens"] | None = None
    host_lengths: Int64[Tensor, " texts"] | None = field(
        default=None, repr=False, compare=False, metadata={"stays": True}
    )

    def select(self, rows: Int64[Tensor, " chosen"]) -> "TokenEmbeddings":
        """Return the texts at ``rows``, in that order; rows on the CPU keep the host from waiting."""
        rows, device = rows.cpu(), self.tokens.device
        host_places, sizes = token_places(self.sizes, rows)
        places = upload(host_places, device)
        return TokenEmbeddings(
            self.tokens[places],
            upload(sizes, device),
            None if self.ids is None else self.ids[places],
            None if self.cls is None else self.cls[upload(rows, device)],
            self.exact_match,
            None if self.gates is None else self.gates[places],
            sizes,
        )


@dataclass(frozen=True)
class TokenVectors:
    """:class:`TokenEmbeddings` as arrays, which may be memory-mapped: a corpus, or its queries.

    Vectors that are packed as signs hold bytes; :mod:`embedtrain.retrieval.late_interaction.binary_tokens`.
    """

    values: Float[np.ndarray, "tokens dim"] | UInt8[np.ndarray, "tokens bytes"]
    lengths: Int64[np.ndarray, " texts"]
    ids: Int64[np.ndarray, " tokens"] | None = None
    cls: Float[np.ndarray, "texts cls_dim"] | None = None
    exact_match: bool = False

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def nbytes(self) -> int:
        """Bytes that the vectors take; ids count only where scores need them."""
        ids = self.ids.nbytes if self.ids is not None and self.exact_match else 0
        return self.values.nbytes + ids + (0 if self.cls is None else self.cls.nbytes)

    def part(self, start: int, stop: int) -> "TokenVectors":
        """Return the texts from ``start`` to ``stop``, without copying."""
        before = int(self.lengths[:start].sum())
        tokens = slice(before, before + int(self.lengths[start:stop].sum()))
        return self._at(tokens, slice(start, stop))

    def select(self, rows: Int64[np.ndarray, " chosen"]) -> "TokenVectors":
        """Copy the texts at ``rows``, in that order."""
        lengths = self.lengths[rows]
        starts = np.cumsum(self.lengths)[rows] - lengths
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return self._at(within + np.repeat(starts, lengths), rows)

    def _at(self, tokens: slice | np.ndarray, texts: slice | np.ndarray) -> "TokenVectors":
        return TokenVectors(
            self.values[tokens],
            self.lengths[texts],
            None if self.ids is None else self.ids[tokens],
            None if self.cls is None else self.cls[texts],
            self.exact_match,
        )

    def tensors(self, device: torch.device | str = "cpu") -> TokenEmbeddings:
        """Return the vectors as float32 tensors."""
        ids, cls = self.ids, self.cls
        return TokenEmbeddings(
            torch.from_numpy(np.array(self.values, dtype=np.float32)).to(device),
            torch.from_numpy(np.array(self.lengths)).to(device),
            None if ids is None else torch.from_numpy(np.array(ids)).to(device),
            None if cls is None else torch.from_numpy(np.array(cls, np.float32)).to(device),
            self.exact_match,
        )


Embeddings = Float[Tensor, "_ _"] | TokenEmbeddings
"""What a model makes of texts: one vector each (shape [texts, dim]), or several."""

Change = Callable[[Embeddings], Embeddings]


@dataclass(frozen=True)
class AllQueries(Movable):
    """The queries of all ranks, own first, for objectives whose candidates are queries."""

    embeddings: Float[Tensor, "all_queries dim"] | TokenEmbeddings
    ids: Int64[Tensor, " all_queries"]
    known_positives: Int64[Tensor, "all_queries known"]
    """Ids of the documents that answer each query, those in the batch included."""
    guide_ids: Int64[Tensor, " all_queries"] | None = None
    """What a guide reads in place of each; None where it reads the queries."""


@dataclass(frozen=True)
class WordActivity(Movable):
    """What the texts of one side of a batch, over all ranks, make of each word; see :mod:`embedtrain.ops.word_activity`."""

    mean: Float[Tensor, " dim"]
    """The weight of each word, averaged over texts, with gradient."""
    share: Float[Tensor, " dim"]
    """The share of texts in which each word has any weight."""


@dataclass(frozen=True)
class GuideEmbeddings(Movable):
    """What another model, which is not trained, makes of the queries and candidates of a batch."""

    query: Float[Tensor, "queries guide_dim"]
    document: Float[Tensor, "documents guide_dim"]
    all_query: Float[Tensor, "all_queries guide_dim"]
    """The queries of all ranks where they were gathered, else ``query`` again."""


@dataclass(frozen=True)
class RetrievalOutputs(Movable):
    """What a model says about a batch: the embeddings of each query and of each candidate.

    They are already normalised where the model's similarity is cosine; :mod:`embedtrain.ops.similarity` scores them,
    whichever kind they are. ``temperature``, where the model learns it, overrides the objective's own.
    """

    query: Float[Tensor, "queries numbers"] | TokenEmbeddings
    document: Float[Tensor, "documents dim"] | TokenEmbeddings
    relevance: Relevance
    temperature: Float[Tensor, ""] | None = None
    similarity: Similarity = "cosine"
    """Whether the vectors are normalised; what shortens them has to know."""
    gate: Float[Tensor, ""] | None = None
    """Mean gate of each query's documents, averaged over this rank's queries (ColBERTer)."""
    recovery: Float[Tensor, ""] | None = None
    """What bits miss of the vectors of each query's documents, averaged over this rank's queries (``model.recovery``)."""
    cls_share: Float[Tensor, ""] | None = None
    """The weight that ``query.cls`` carries already, where the model has one (ColBERTer)."""
    all_queries: AllQueries | None = None
    """Set where several ranks train and the objective asked for it."""
    query_words: WordActivity | None = None
    """Set where several ranks train and the objective asked for it: of the queries of all of them."""
    code: SparseCode | None = None
    """Set where vectors are codes of dense ones."""
    price_factors: Float[Tensor, "2"] | None = None
    """What multiplies the cost of entries of queries and of documents, where the objective has a target for them."""
    progress: float | None = None
    """The share of the training's steps that are done after this one; None outside training."""
    guide: GuideEmbeddings | None = None
    """Set where the recipe names a guide."""
    pair_classifier: Float[Tensor, "classes features"] | None = None
    """Weights of a classifier of pairs, where the model trains one (``model.pair_classes``)."""
    word_prediction: WordPrediction | None = None
    """Set where the model has a masked-language head for words (``model.word_head``)."""
    interaction: Interaction | None = None
    """Set where no inner product scores pairs; a query's numbers may then be more than a document's."""
    bank: Bank | None = None
    """Vectors of earlier steps, where the objective asked for them."""
    exits: tuple[int, ...] = ()
    """Layers whose vectors stand side by side in every embedding, deepest last; empty for one vector."""
    pair_scores: Float[Tensor, " documents"] | None = None
    """Of each candidate with the query that brought it, where the model reads both; embeddings have no dimension then."""
    pair_logits: Float[Tensor, "documents classes"] | None = None
    """The same where the model tells classes of pairs apart, in place of ``pair_scores``."""
    exit_scores: Float[Tensor, "documents exits"] | None = None
    """The same of each of ``exits`` side by side, where there are several; ``pair_scores`` are the last."""

    @property
    def reads_pairs(self) -> bool:
        """Whether the model reads both texts together, so that there are no vectors."""
        return self.pair_scores is not None or self.pair_logits is not None

    def at_exit(self, place: int) -> "RetrievalOutputs":
        """Return the outputs of one of ``exits`` alone, by its place among them; all of it where none are."""
        if not self.exits:
            return self
        if self.exit_scores is not None:
            return replace(self, pair_scores=self.exit_scores[:, place], exit_scores=None, exits=())

        def cut(embeddings: Embeddings) -> Embeddings:
            assert isinstance(embeddings, Tensor)
            return embeddings.chunk(len(self.exits), dim=1)[place]

        return replace(self.changed(cut, cut), exits=())

    def changed(self, query: Change, document: Change) -> "RetrievalOutputs":
        """Return the outputs with other embeddings of each side, the queries of all ranks like the own."""
        everyone = self.all_queries
        return replace(
            self,
            query=query(self.query),
            document=document(self.document),
            all_queries=everyone and replace(everyone, embeddings=query(everyone.embeddings)),
        )


@dataclass(frozen=True)
class ObjectiveOutput(Movable):
    """The loss (a scalar with a graph) and figures for the log (detached scalars)."""

    loss: Float[Tensor, ""]
    metrics: dict[str, Float[Tensor, ""]]
