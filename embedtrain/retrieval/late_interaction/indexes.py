"""Every late-interaction index by its name: build one, measure it against exact search, load it again."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from embedtrain.errors import UserError
from embedtrain.retrieval.dense.faiss_index import sample_rows
from embedtrain.retrieval.index_folder import read_manifest
from embedtrain.retrieval.late_interaction.binary_tokens import BinaryIndex, BinarySearch
from embedtrain.retrieval.late_interaction.exact import (
    ExactIndex,
    ExactSearch,
    LateInteractionIndex,
)
from embedtrain.retrieval.late_interaction.fast_plaid import FastPlaidIndex, FastPlaidSearch
from embedtrain.retrieval.late_interaction.fixed_dimensional import (
    FixedDimensionalIndex,
    FixedDimensionalSearch,
)
from embedtrain.retrieval.late_interaction.rerank import (
    NUM_SAMPLED_QUERIES,
    recall_against_exact,
)
from embedtrain.retrieval.late_interaction.token_pooling import keep_first
from embedtrain.retrieval.late_interaction.token_search import (
    TokenIndex,
    TokenSearch,
    XtrIndex,
    XtrSearch,
)
from embedtrain.types import TokenVectors

logger = logging.getLogger(__name__)

STAND_IN_TOKENS = 32
"""Tokens of a document that stand in for a query where no queries are given."""

LateInteractionSearch = Annotated[
    ExactSearch | FixedDimensionalSearch | TokenSearch | XtrSearch | BinarySearch | FastPlaidSearch,
    Field(discriminator="name"),
]
"""How documents of several vectors are searched: ``{name: fde, repetitions: 20}``."""

INDEXES = (ExactIndex, FixedDimensionalIndex, TokenIndex, XtrIndex, BinaryIndex, FastPlaidIndex)


@dataclass(frozen=True)
class IndexReport:
    """What an index costs and what it misses."""

    kind: str
    num_documents: int
    num_bytes: int
    build_seconds: float
    recall: float
    """Share of the exact best documents that it finds, on sampled queries."""
    num_results: int
    """How many best documents that is about."""
    num_queries: int
    queries_are_documents: bool
    """The beginnings of documents stood in for queries; recall of real queries may be lower."""

    @property
    def bytes_per_document(self) -> float:
        """Bytes of the index for each document."""
        return self.num_bytes / self.num_documents

    def __str__(self) -> str:
        queries = "beginnings of documents" if self.queries_are_documents else "queries"
        return (
            f"index {self.kind}: {self.num_documents:,} documents, {self.bytes_per_document:,.0f} "
            f"bytes each, built in {self.build_seconds:.1f} s, finds {self.recall:.1%} of the exact "
            f"best {self.num_results} ({self.num_queries} {queries})"
        )


def build_late_interaction_index(
    documents: TokenVectors,
    search: LateInteractionSearch,
    *,
    queries: TokenVectors | None = None,
    num_results: int = 10,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[LateInteractionIndex, IndexReport]:
    """Build an index and measure, on a seeded sample, what it finds of the exact result; log both.

    Args:
        documents: The corpus, in memory or mapped from files.
        search: Which index, and its settings.
        queries: Queries to sample from; None takes the beginnings of documents, which are easier.
        num_results: How many best documents recall is about.
        seed: Draws the sample.
        device: Where scores are computed.
    """
    start = time.perf_counter()
    index = search.build(documents, device)
    build_seconds = time.perf_counter() - start
    sample = _stand_ins(documents, seed) if queries is None else queries
    exact = ExactIndex(documents, device=device)
    num_results = min(num_results, len(documents))
    recall = (
        1.0
        if isinstance(index, ExactIndex)
        else recall_against_exact(index, exact, sample, num_results, seed=seed)
    )
    report = IndexReport(
        index.kind,
        len(documents),
        index.num_bytes,
        build_seconds,
        recall,
        num_results,
        min(len(sample), NUM_SAMPLED_QUERIES),
        queries is None,
    )
    logger.info("%s", report)
    return index, report


def load_late_interaction_index(
    folder: Path, device: torch.device | str = "cpu"
) -> LateInteractionIndex:
    """Load an index of any kind from the folder that its ``save`` wrote."""
    kind = read_manifest(folder)["kind"]
    for index in INDEXES:
        if index.kind == kind:
            loaded: LateInteractionIndex = index.load(folder, device)
            return loaded
    raise UserError(folder, "holds an index of an unknown kind", got=kind, cure="Build it again")


def _stand_ins(documents: TokenVectors, seed: int) -> TokenVectors:
    chosen = documents.select(sample_rows(len(documents), NUM_SAMPLED_QUERIES, seed))
    return keep_first(chosen, np.minimum(chosen.lengths, STAND_IN_TOKENS))
