"""Which pairs a judge is asked about: what mining kept out first, then close negatives, then positives."""

import hashlib
import heapq
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from embedtrain.contract.spans import alone
from embedtrain.mining.judgement.rows import PEOPLE, JudgedQuery, MinedRow
from embedtrain.mining.judgement.settings import JudgeConfig

Role = Literal["rejected", "negative", "positive", "label", "random"]
ROLES: tuple[Role, ...] = ("rejected", "negative", "positive")
"""In the order in which a budget is spent."""
FEWEST_POSITIVES = 100
"""So many positives that people gave are judged, where there are as many."""
SENTENCE_END = re.compile(r"[.!?。！？](?=\s)")  # noqa: RUF001 - ends of Chinese and Japanese sentences
Key = tuple[str, str]
"""Ids of a query and of a document."""


@dataclass(frozen=True)
class Pair:
    """A query and a document that a judge is asked about."""

    role: Role
    query_id: str
    document_id: str
    query: str
    document: str
    text: str
    """Of the document, as the judge reads it."""
    doubt: float = 0.0
    """How far its score is from the lowest positive's; the most doubtful pairs have the least."""
    relevant: bool | None = None
    """What people say."""
    by_people: bool = False
    """A positive that people gave: it stays whatever the judge says."""

    @property
    def key(self) -> Key:
        """Ids of both texts."""
        return self.query_id, self.document_id

    @property
    def texts(self) -> tuple[str, str]:
        """What a scorer is given."""
        return self.query, self.text


@dataclass(frozen=True)
class Selected:
    """What is to be asked, and how many queries there are."""

    pairs: list[Pair]
    positives: list[Pair]
    """Of those, what is measured beside random pairs: all that people gave, or the first that a writer gave."""
    random: list[Pair]
    num_queries: int


def select_pairs(
    queries: Iterable[JudgedQuery], config: JudgeConfig, labels: Mapping[Key, int]
) -> Selected:
    """Choose pairs: the most doubtful first under a budget, else query by query.

    What people have judged is left out: it would only be contradicted.
    """
    chosen: list[Pair] = []
    spare: list[tuple[float, Pair]] = []
    pool = _RandomPairs(config)
    for query in queries:
        pool.add(query)
        pairs = [*_rejected(query, config), *_close_negatives(query.row, config)]
        chosen += [pair for pair in pairs if pair.key not in labels]
        for pair in _positives(query.row, config):
            drawn = draw(config.seed, *pair.key)
            if pair.key in labels and not pair.by_people:
                continue
            if not pair.by_people or drawn < config.positives:
                chosen.append(pair)
            elif config.positives:
                spare.append((drawn, pair))
        if len(spare) > 8 * FEWEST_POSITIVES:
            spare = _first(spare)
    missing = FEWEST_POSITIVES - sum(pair.by_people for pair in chosen)
    chosen += [pair for _, pair in _first(spare)[: max(missing, 0)]]
    if config.tokens is not None or config.money is not None:
        chosen.sort(key=lambda one: (ROLES.index(one.role), one.doubt, one.key))
    return Selected(chosen, _measured(chosen, config), pool.pairs(), pool.num_queries)


def draw(seed: int, *names: str) -> float:
    """Return a number in [0, 1) that depends on names and seed only."""
    content = "|".join([str(seed), *names]).encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") / 2**64


def passage(text: str, words: int) -> str:
    """Return the first words of a text, ended at a sentence where one ends in the second half of them."""
    spans = [match.end() for match in re.finditer(r"\S+", text)]
    if len(spans) <= words:
        return text
    cut = text[: spans[words - 1] + 1]
    ends = [match.end() for match in SENTENCE_END.finditer(cut)]
    return cut[: ends[-1]] if ends and ends[-1] > len(cut) / 2 else cut.rstrip()


def _measured(chosen: list[Pair], config: JudgeConfig) -> list[Pair]:
    given = [pair for pair in chosen if pair.by_people]
    if given:
        return given
    made = [pair for pair in chosen if pair.role == "positive"]
    return heapq.nsmallest(FEWEST_POSITIVES, made, key=lambda one: draw(config.seed, *one.key))


def _first(spare: list[tuple[float, Pair]]) -> list[tuple[float, Pair]]:
    return heapq.nsmallest(FEWEST_POSITIVES, spare, key=lambda one: one[0])


def _rejected(query: JudgedQuery, config: JudgeConfig) -> Iterator[Pair]:
    for one in query.rejected:
        if one.rank <= config.depth:
            yield _pair("rejected", query.row, one.id, one.text, one.score, config)


def _close_negatives(row: MinedRow, config: JudgeConfig) -> Iterator[Pair]:
    bound = row.lowest - (1 - config.close) * abs(row.lowest)
    scores = row.scores[len(row.positives) :]
    seen: set[str] = set()
    for name, text, score in zip(row.negative_ids, row.negatives, scores, strict=True):
        if score > bound and name not in seen:  # mining may repeat one
            seen.add(name)
            yield _pair("negative", row, name, text, score, config)


def _positives(row: MinedRow, config: JudgeConfig) -> Iterator[Pair]:
    given = row.positive_sources or [PEOPLE] * len(row.positives)
    found = zip(row.positive_ids, row.positives, row.scores, given, strict=False)
    for name, text, score, source in found:
        by_people = source == PEOPLE and not config.written
        yield _pair("positive", row, name, text, score, config, by_people=by_people)


def _pair(
    role: Role,
    row: MinedRow,
    name: str,
    text: str,
    score: float,
    config: JudgeConfig,
    *,
    by_people: bool = False,
) -> Pair:
    return Pair(
        role=role,
        query_id=row.query_id,
        document_id=name,
        query=row.query,
        document=alone(text),
        text=passage(alone(text), config.words),
        doubt=abs(score - row.lowest) / (abs(row.lowest) or 1.0),
        relevant=True if by_people else None,
        by_people=by_people,
    )


class _RandomPairs:
    """Keeps queries and documents with the smallest hashes while rows go by, and pairs them."""

    def __init__(self, config: JudgeConfig) -> None:
        self.config = config
        self.num_queries = 0
        self._queries: list[tuple[float, JudgedQuery]] = []
        self._documents: dict[str, tuple[float, str]] = {}

    def add(self, query: JudgedQuery) -> None:
        """Look at a row."""
        self.num_queries += 1
        config, row = self.config, query.row
        self._queries.append((draw(config.seed, "query", row.query_id), query))
        if len(self._queries) > 2 * config.num_random + 64:
            self._shrink()
        ids, texts = row.positive_ids + row.negative_ids, row.positives + row.negatives
        for name, text in zip(ids, texts, strict=True):
            if name not in self._documents:
                self._documents[name] = (draw(config.seed, "document", name), text)
        if len(self._documents) > 8 * config.num_random + 64:
            self._shrink()

    def pairs(self) -> list[Pair]:
        """Pair each query with documents that no row of it names, several where queries are few."""
        self._shrink()
        found: list[Pair] = []
        documents = list(self._documents.items())
        for turn in range(len(documents)):
            for place, (_, query) in enumerate(self._queries):
                if len(found) == self.config.num_random:
                    return found
                own = {*query.row.positive_ids, *query.row.negative_ids}
                own |= {one.id for one in query.rejected}
                name, (_, text) = documents[(place + turn) % len(documents)]
                if name not in own:
                    short = passage(alone(text), self.config.words)
                    ids = query.row.query_id, name
                    found.append(Pair("random", *ids, query.row.query, text, short, relevant=False))
        return found

    def _shrink(self) -> None:
        most = self.config.num_random
        self._queries = heapq.nsmallest(most, self._queries, key=lambda one: one[0])
        order = sorted(self._documents.items(), key=lambda one: (one[1][0], one[0]))
        self._documents = dict(order[:most])
