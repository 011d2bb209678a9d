"""From the rows of a step to a batch: each distinct text once, positives and ids beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat

from embedtrain.contract.texts import join_texts
from embedtrain.data.examples import SourceConfig
from embedtrain.data.gram import square_of
from embedtrain.data.mixture import Draw
from embedtrain.data.tokenized import TokenizedSource
from embedtrain.errors import UserError
from embedtrain.packed import Texts
from embedtrain.section import Count, Section
from embedtrain.types import Relevance, RetrievalBatch, Side

Gram = Float32[np.ndarray, "_ _"]
"""Cosines between the documents of a row, as a teacher sees them; rows differ in how many they have."""


Guided = Int64[np.ndarray, " _"]
"""Ids of what a guide reads for a row's query, then for its documents; none where it reads the texts themselves."""


class DataConfig(Section):
    """What to train on."""

    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    """Each step draws its batch from one of them."""
    num_positives: Count = 1
    """Positives per query and step; of more, that many are drawn anew at each visit."""
    num_negatives: int | None = Field(default=None, ge=0, le=10**9)
    """Hard negatives per query and step, besides in-batch negatives; null takes all a row has."""
    random_negatives: int = Field(default=0, ge=0, le=10**6)
    """Besides those, so many documents per query and step that are drawn from all of the source's: easy ones, which a
    model of hard negatives alone may forget. They have no teacher score."""
    candidates: Literal["batch", "all"] = "batch"
    """What a step's queries are compared with. ``batch``: the documents that its rows bring. ``all``: every document
    of the source, labels that are few (up to about 20,000): each step encodes all of them, each rank its part. A
    label without a query is one that some row has among its negatives."""
    mixing_exponent: NonNegativeFloat = 1.0
    """Sources without a weight are drawn in proportion to ``batches ** mixing_exponent``."""
    cache: str | None = None
    """Folder of tokenised data; null is ~/.cache/embedtrain, or $EMBEDTRAIN_CACHE."""


@dataclass(frozen=True)
class BatchBuilder:
    """Builds the batch of a draw; which positives and negatives a row shows depends on seed, step and place only."""

    sources: Sequence[TokenizedSource]
    num_positives: int = 1
    """Positives per query."""
    num_negatives: int | None = None
    """Hard negatives per query; None for all."""
    seed: int = 0
    """Of the choice among a row's positives and negatives."""
    random_negatives: int = 0
    """Documents per query that are drawn from all of the source's."""
    all_documents: bool = False
    """Whether every document of the source is a candidate, in place of those that rows bring."""

    @classmethod
    def of(
        cls, config: DataConfig, sources: Sequence[TokenizedSource], seed: int = 0
    ) -> "BatchBuilder":
        """Return the builder that a recipe asks for."""
        return cls(
            sources,
            num_positives=config.num_positives,
            num_negatives=config.num_negatives,
            seed=seed,
            random_negatives=config.random_negatives,
            all_documents=config.candidates == "all",
        )

    def __call__(self, draw: Draw) -> RetrievalBatch:
        """Return the batch; rows without enough positives or negatives simply bring fewer."""
        source = self.sources[draw.source]
        if self.all_documents:
            return self._with_all(source, draw)
        if not draw.places:
            cure = "Raise batch_size, or use fewer devices and micro-batches"
            raise UserError("data.sources", "give a device no document of its own", cure=cure)
        documents: list[int] = []
        owners: list[int] = []
        columns: list[NDArray[np.int64]] = []
        scores: list[float] = []
        grams: list[Gram | None] = []
        guides: list[Guided] = []
        part = draw.own_rows
        rows, shares, sharing = part.tolist(), source.shares(part), _Sharing()
        for owner, (place, row) in enumerate(zip(draw.places, rows, strict=True)):
            entropy = [self.seed, 2, draw.step, place]
            group = self._group(source, row, entropy)
            found = sharing.place(owner, int(shares[owner]), group, len(documents))
            columns.append(found.columns[: group.num_positives])
            documents += [group.documents[new] for new in found.new]
            owners += [found.owner] * len(found.new)
            scores += group.scores
            grams.append(group.gram)
            guides.append(
                group.guides[[0, *(new + 1 for new in found.new)]]
                if len(group.guides)
                else group.guides
            )
        queries = source.rows.values("query", rows)
        query_texts, query_rows = _distinct(source, "query", queries)
        document_texts, document_rows = _distinct(source, "document", np.array(documents))
        known = [source.known_positives(query) for query in queries.tolist()]
        relevance = Relevance(
            query_ids=torch.from_numpy(source.texts["query"].values("id", queries.tolist())),
            document_ids=torch.from_numpy(source.texts["document"].values("id", documents)),
            owners=torch.tensor(owners),
            positives=torch.from_numpy(pad_rows(columns)),
            known_positives=torch.from_numpy(pad_rows(known)),
            teacher_scores=torch.tensor(scores) if len(scores) == len(documents) else None,
            teacher_gram=_grams(grams, np.bincount(owners, minlength=len(rows))),
            query_owners=None if (shares < 0).all() else torch.tensor(sharing.owners),
            query_guide_ids=_joined([guide[:1] for guide in guides]),
            document_guide_ids=_joined([guide[1:] for guide in guides]),
        )
        return RetrievalBatch(
            query_texts, document_texts, query_rows, document_rows, relevance, draw.source
        )

    def _with_all(self, source: TokenizedSource, draw: Draw) -> RetrievalBatch:
        """Return the batch whose candidates are this rank's part of the source's documents.

        No query brought them. Columns are those that they have when all ranks' parts are gathered, own first.
        """
        rank, ranks = draw.share
        ends = np.arange(ranks + 1) * len(source.texts["document"]) // ranks
        own = np.arange(ends[rank], ends[rank + 1])
        shift = len(source.texts["document"]) - ends[rank]
        columns = []
        for place, row in zip(draw.places, draw.own_rows.tolist(), strict=True):
            positives = source.rows.row("positives", row)
            shown = _choose(len(positives), self.num_positives, [self.seed, 2, draw.step, place, 0])
            columns.append((positives[shown] + shift) % len(source.texts["document"]))
        queries = source.rows.values("query", draw.own_rows.tolist())
        query_texts, query_rows = _distinct(source, "query", queries)
        documents, document_rows = _distinct(source, "document", own)
        known = [source.known_positives(query) for query in queries.tolist()]
        relevance = Relevance(
            query_ids=torch.from_numpy(source.texts["query"].values("id", queries.tolist())),
            document_ids=torch.from_numpy(source.texts["document"].values("id", own.tolist())),
            owners=torch.full((len(own),), -1),
            positives=torch.from_numpy(pad_rows(columns)),
            known_positives=torch.from_numpy(pad_rows(known)),
        )
        return RetrievalBatch(
            query_texts, documents, query_rows, document_rows, relevance, draw.source
        )

    def _group(self, source: TokenizedSource, row: int, entropy: list[int]) -> "_Group":
        positives = source.rows.row("positives", row)
        negatives = source.rows.row("negatives", row)
        shown = _choose(len(positives), self.num_positives, [*entropy, 0])
        hidden = _choose(len(negatives), self.num_negatives, [*entropy, 1])
        scores = source.rows.row("scores", row)
        gram = source.rows.row("teacher_gram", row)
        guides = source.rows.row("guides", row)
        kept = np.concatenate([shown, hidden + len(positives)])
        documents = [*positives[shown].tolist(), *negatives[hidden].tolist()]
        added: list[int] = []
        if self.random_negatives:
            added = self._random(source, row, documents, [*entropy, 2])
        size = len(positives) + len(negatives)
        return _Group(
            documents + added,
            len(shown),
            scores[kept].tolist() if len(scores) else [],
            square_of(gram, size)[np.ix_(kept, kept)] if len(gram) and not added else None,
            guides[[0, *(kept + 1)]] if len(guides) else guides,
        )

    def _random(
        self, source: TokenizedSource, row: int, group: list[int], entropy: list[int]
    ) -> list[int]:
        """Draw documents that neither answer the row's query nor stand in its group; all such where there are few."""
        known = source.known_positives(int(source.rows.values("query", [row])[0]))
        size = len(source.texts["document"])
        wanted = min(size, self.random_negatives + len(group) + len(known))
        drawn = np.random.default_rng(entropy).choice(size, size=wanted, replace=False)
        ids = source.texts["document"].values("id", drawn.tolist())
        kept = drawn[~np.isin(ids, known) & ~np.isin(drawn, group)]
        found: list[int] = kept[: self.random_negatives].tolist()
        return found


@dataclass(frozen=True)
class _Group:
    """The documents of one row, positives first, and what a teacher says of them where it does."""

    documents: list[int]
    num_positives: int
    scores: list[float]
    gram: Gram | None
    guides: Guided


class _Placed(NamedTuple):
    """Where a row's documents stand: who brought them, all columns, and those of the documents that are new."""

    owner: int
    columns: NDArray[np.int64]
    new: list[int]


class _Sharing:
    """Gives each row's documents their columns; rows of one key find those that an earlier one brought."""

    def __init__(self) -> None:
        self.owners: list[int] = []
        self._known: dict[int, tuple[int, dict[int, int]]] = {}

    def place(self, row: int, key: int, group: "_Group", start: int) -> _Placed:
        """Place the documents of the next row, of which the new ones begin at ``start``."""
        every = range(len(group.documents))
        owner, there = (row, {}) if key < 0 else self._known.setdefault(key, (row, {}))
        self.owners.append(owner)
        if key < 0:
            return _Placed(owner, np.arange(start, start + len(every)), list(every))
        new = [n for n in every if group.documents[n] not in there]
        there |= {group.documents[n]: start + place for place, n in enumerate(new)}
        columns = np.array([there[document] for document in group.documents], dtype=np.int64)
        return _Placed(owner, columns, new)


def _grams(
    grams: Sequence[Gram | None], sizes: NDArray[np.int64]
) -> Float32[torch.Tensor, "queries group group"] | None:
    """Return matrices of different sizes as one tensor; None if they lack where there are several documents."""
    lacking = [gram is None for gram in grams]
    if all(lacking) or sizes[lacking].max(initial=0) > 1:
        return None
    padded = np.tile(np.eye(sizes.max(), dtype=np.float32), (len(grams), 1, 1))
    for whole, gram in zip(padded, grams, strict=True):
        if gram is not None:
            whole[: len(gram), : len(gram)] = gram
    return torch.from_numpy(padded)


def _joined(ids: Sequence[Guided]) -> torch.Tensor | None:
    joined = torch.from_numpy(np.concatenate(ids))
    return joined if len(joined) else None


def _choose(available: int, wanted: int | None, entropy: list[int]) -> NDArray[np.int64]:
    """Choose some of a row's texts; a generator of its own lets ranks build their rows alone."""
    if wanted is None or wanted >= available:
        return np.arange(available)
    chosen = np.random.default_rng(entropy).choice(available, size=wanted, replace=False)
    return np.sort(chosen)


def _distinct(
    source: TokenizedSource, side: Side, indices: NDArray[np.int64]
) -> tuple[Texts, torch.Tensor]:
    distinct, rows = np.unique(indices, return_inverse=True)
    texts = join_texts(source.tokens(side, index) for index in distinct.tolist())
    return texts, torch.from_numpy(rows.astype(np.int64))


def pad_rows(lists: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Lay lists under one another as the rows of a matrix, filled up with -1."""
    width = max((len(values) for values in lists), default=0)
    padded = np.full((len(lists), max(width, 1)), -1, dtype=np.int64)
    for row, values in zip(padded, lists, strict=True):
        row[: len(values)] = values
    return padded
