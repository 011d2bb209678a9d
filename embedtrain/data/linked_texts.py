"""Which texts of training data belong together: groups that are held out whole or not at all.

Texts that stand in a row as query and positive are linked, and so are those linked to the same text; or, ``by`` query,
only queries of the same words are. Texts that differ in case and spaces only are one text. Groups are taken in the order of a hash of their texts:
neither a seed nor the order of the rows changes anything, and a few more rows change little.
"""

from array import array
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from embedtrain.data.examples import Example, text_id

By = Literal["answer", "query"]
PUNCTUATION = ".,;:!?…\"'()[]{}«»„“”‘’。！？、，；：「」"  # noqa: RUF001
"""Around words it says nothing else; ``C++`` and ``C#`` stay two."""
MIXER = np.uint64(0x9E3779B97F4A7C15)
"""An odd number: hashes times it are in another order, which the size of a group does not bias."""


def node_of(text: str) -> int:
    """Return the id that a text shares with those that differ in case and spaces only."""
    return text_id(" ".join(text.casefold().split()))


def same_words(query: str) -> int:
    """Return the id that a query shares with those that differ in case, spaces and punctuation only."""
    words = (word.strip(PUNCTUATION) for word in query.casefold().split())
    return text_id("query\n" + " ".join(filter(None, words)))


def is_judged_pair(example: Example) -> bool:
    """Whether a row is two texts and a judgment: its second text need not answer the first."""
    return bool(example.scores) and not example.negatives


class LinkedTexts:
    """All queries and positives as nodes, and which stand together.

    Args:
        num_candidates: Documents to keep in mind for :meth:`candidates`.
        by: What holds a group together: ``answer``, or ``query``.
    """

    def __init__(self, num_candidates: int, by: By = "answer") -> None:
        self._by = by
        self._edges = array("q")
        self._queries = array("q")
        self._num_candidates = num_candidates
        self._candidates = np.empty(0, dtype=np.int64)
        self._documents = array("q")
        self.num_queries = 0

    def add(self, example: Example) -> None:
        """Add a row."""
        query = node_of(example.query)
        positives = [node_of(text) for text in example.positives]
        linked = positives if self._by == "answer" else [same_words(example.query)]
        for node in linked:
            self._edges.extend((query, node))
        if not is_judged_pair(example):
            self._queries.append(query)
        self._documents.extend(positives)
        self._documents.extend(node_of(text) for text in example.negatives if text.strip())
        if len(self._documents) > 1_000_000:
            self.candidates()

    def candidates(self) -> NDArray[np.int64]:
        """Return the documents with the smallest hashes, which is a random choice of them."""
        both = np.concatenate([self._candidates, np.array(self._documents, dtype=np.int64)])
        self._candidates, self._documents = np.unique(both)[: self._num_candidates], array("q")
        return self._candidates

    def hold_out(self, fractions: Sequence[float]) -> list[list[int]]:
        """Return for each fraction the texts of whole groups that hold this share of the queries.

        A group with more queries than are lacking is passed over.
        """
        nodes, ends = np.unique(np.array(self._edges, dtype=np.int64), return_inverse=True)
        pairs = (ends[0::2], ends[1::2])
        links = coo_array((np.ones(len(pairs[0]), dtype=np.int8), pairs), shape=(len(nodes),) * 2)
        num_groups, group_of = connected_components(links, directed=False)
        queries = np.unique(np.array(self._queries, dtype=np.int64))
        self.num_queries = len(queries)
        sizes = np.bincount(group_of[np.searchsorted(nodes, queries)], minlength=num_groups)
        first = nodes[np.unique(group_of, return_index=True)[1]].astype(np.uint64)
        order = np.argsort(first * MIXER, kind="stable")
        taken = np.full(num_groups, -1)
        for number, fraction in enumerate(fractions):
            lacking = round(fraction * len(queries))
            for group in order[taken[order] < 0]:
                if lacking == 0:
                    break
                if 0 < sizes[group] <= lacking:
                    taken[group], lacking = number, lacking - sizes[group]
        return [nodes[taken[group_of] == n].tolist() for n in range(len(fractions))]
