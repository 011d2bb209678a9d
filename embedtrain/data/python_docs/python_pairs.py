"""Pairs from many packages: repetitions out, whole packages held out."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from embedtrain.data.near_duplicates import near_duplicates
from embedtrain.data.python_docs.docstring_text import normalize
from embedtrain.data.python_docs.docstrings import DocumentedObject

Split = Literal["train", "validation", "test"]
HELD_OUT: tuple[Split, ...] = ("test", "validation")

MAX_DOCUMENTS_PER_QUERY = 4
TEST_RATIO, MIN_TEST_PAIRS, MAX_TEST_PAIRS = 0.12, 2800, 4300
VALIDATION_RATIO, MAX_VALIDATION_PAIRS = 0.03, 1000
MAX_HELD_OUT_RATIO = 0.25
MAX_PACKAGE_RATIO = 0.35


@dataclass(frozen=True)
class PythonPair:
    """A documented object and the package it is from."""

    package: str
    documented: DocumentedObject

    @property
    def query(self) -> str:  # noqa: D102
        return self.documented.query

    @property
    def content(self) -> str:
        """What the pair says apart from where it stands: copies in other modules have the same."""
        return f"{self.query} {self.documented.document.removeprefix(self.documented.name)}"


def distinct_pairs(pairs: Iterable[PythonPair]) -> list[PythonPair]:
    """Drop exact copies, then all pairs of a query that still has many documents: it says nothing."""
    by_content: dict[str, PythonPair] = {}
    for pair in pairs:
        by_content.setdefault(normalize(pair.content), pair)
    num_documents = Counter(normalize(pair.query) for pair in by_content.values())
    return [
        pair
        for pair in by_content.values()
        if num_documents[normalize(pair.query)] <= MAX_DOCUMENTS_PER_QUERY
    ]


def split_packages(num_pairs: Mapping[str, int]) -> dict[str, Split]:
    """Assign whole packages to splits, in the order of a hash of their names.

    A package is held out if it fits what its split still lacks and is not most of it: a test on one
    package would measure that package.
    """
    total = sum(num_pairs.values())
    goals = {
        "test": min(
            MAX_TEST_PAIRS, max(MIN_TEST_PAIRS, TEST_RATIO * total), MAX_HELD_OUT_RATIO * total
        ),
        "validation": min(MAX_VALIDATION_PAIRS, VALIDATION_RATIO * total),
    }
    splits: dict[str, Split] = {}
    for split in HELD_OUT:
        lacking = goals[split]
        for package in sorted(num_pairs, key=lambda name: hashlib.sha256(name.encode()).digest()):
            count = num_pairs[package]
            if package not in splits and count <= min(lacking, MAX_PACKAGE_RATIO * goals[split]):
                splits[package] = split
                lacking -= count
    return {package: splits.get(package, "train") for package in num_pairs}


def curate(pairs: Sequence[PythonPair]) -> dict[Split, list[PythonPair]]:
    """Drop exact and near repetitions and split by package, each split in the order of ``pairs``.

    Of pairs that repeat one another the one in the test split stays, then the one in validation, so that
    training holds neither the query nor the content of a held-out pair, not even nearly.
    """
    distinct = distinct_pairs(pairs)
    split_of = split_packages(Counter(pair.package for pair in distinct))
    curated: dict[Split, list[PythonPair]] = {}
    splits: tuple[Split, ...] = (*HELD_OUT, "train")
    ordered = [pair for split in splits for pair in distinct if split_of[pair.package] == split]
    kept = _first_of_near_content(_first_of_near_queries(ordered, split_of))
    for split in splits:
        curated[split] = [pair for pair in kept if split_of[pair.package] == split]
    return curated


def _first_of_near_content(pairs: list[PythonPair]) -> list[PythonPair]:
    originals = near_duplicates([pair.content for pair in pairs])
    return [pair for row, pair in enumerate(pairs) if originals[row] == row]


def _first_of_near_queries(
    pairs: list[PythonPair], split_of: Mapping[str, Split]
) -> list[PythonPair]:
    """Drop pairs whose query nearly repeats an earlier one; the very same query may stay in its split."""
    split_of_query: dict[str, Split] = {}
    for pair in pairs:
        split_of_query.setdefault(normalize(pair.query), split_of[pair.package])
    queries = list(split_of_query)
    originals = near_duplicates(queries)
    kept = {query for row, query in enumerate(queries) if originals[row] == row}
    return [
        pair
        for pair in pairs
        if (query := normalize(pair.query)) in kept
        and split_of_query[query] == split_of[pair.package]
    ]
