"""Whether an engine finds what we find: the same queries in both, their best documents and the scores of these."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from embedtrain.data.readers.text_lines import read_objects
from embedtrain.engines.engine import Engine, Found, Vectors, best_first
from embedtrain.engines.layout import Store, VectorField
from embedtrain.errors import UserError
from embedtrain.retrieval.search import search
from embedtrain.workflows.load.corpus import read_corpus

TOP = 10
FIRST_WORDS = 8
"""Of a document, which are a query where there are no queries."""
MORE = 90
"""Results asked for beyond the first, where the collection holds documents of other corpora."""
TOLERANCE: dict[Store, float] = {"float32": 1e-4, "float16": 1e-2}
"""How far a score may be off, as a share of it or of 1; coarser numbers are compared by their ranks alone."""
SHARE = 0.5
"""Of the results that must agree: fewer mean other vectors, whatever the index."""
EXACT_SHARE = 0.99
"""The same where every document is compared as it is; equal scores count as equal."""


@dataclass(frozen=True)
class Agreement:
    """How far an engine's results are ours."""

    field: str
    num_queries: int
    overlap: float
    """Share of our 10 best documents that are among the engine's, mean over queries; equal scores count as equal."""
    difference: float
    """The largest difference of a document's score, as a share of it or of 1."""


def choose_queries(corpus: str, column: str | None, num_documents: int, wanted: int) -> list[str]:
    """Return queries that are spread over those of a BEIR folder, or the first words of some documents."""
    path = Path(corpus).expanduser() / "queries.jsonl"
    if path.is_file():
        texts = [str(row.get("text", "")) for _, row in read_objects(path)]
        texts = [text for text in texts if text.strip()]
    else:
        step = max(1, num_documents // wanted)
        some = islice(read_corpus(corpus, column), 0, None, step)
        starts = (" ".join(entry.text.split()[:FIRST_WORDS]) for entry in some)
        texts = [text for text in starts if text]
    return texts[:: max(1, len(texts) // wanted)][:wanted]


def find_here(
    queries: Vectors,
    parts: Sequence[tuple[Sequence[str], Vectors]],
    left_out: Collection[str],
    device: torch.device | str,
) -> list[list[Found]]:
    """Return the best documents of each query by exact search over parts of the corpus, each with its ids."""
    best: list[list[Found]] = [[] for _ in range(len(queries))]
    for ids, vectors in parts:
        found = search(queries, vectors, TOP + len(left_out), device=device)
        for number, (rows, scores) in enumerate(zip(found.indices, found.scores, strict=True)):
            new = [
                Found(ids[row], float(score), None)
                for row, score in zip(rows.tolist(), scores, strict=True)
                if row >= 0 and np.isfinite(score) and ids[row] not in left_out
            ]
            best[number] = best_first([*best[number], *new])[:TOP]
    return best


def compare(
    engine: Engine,
    field: VectorField,
    queries: Vectors,
    ours: Sequence[Sequence[Found]],
    others: int,
) -> Agreement:
    """Search in the engine and compare.

    Args:
        engine: The collection, with all documents in it.
        field: The vectors to search.
        queries: Of the same model.
        ours: What is best by exact search.
        others: Documents of the collection that are not in the corpus; they are passed over.

    Raises:
        UserError: If scores are off, or hardly a result is the same.
    """
    theirs = engine.search(field, queries, TOP + min(max(others, 0), MORE))
    shares, difference = [], 0.0
    for best, found in zip(ours, theirs, strict=True):
        # A sparse document without a word of the query is no result; engines do not list it.
        mine = [one for one in best if field.kind != "sparse" or one.score]
        scores = {one.id: one.score for one in found}
        off = [_off(one.score, scores[one.id]) for one in mine if one.id in scores]
        difference = max([difference, *off])
        if mine:
            shares.append(_share(mine, found, TOLERANCE.get(field.store, 0.0)))
    agreement = Agreement(
        field.name, len(shares), float(np.mean(shares)) if shares else 1.0, difference
    )
    is_exact = field.store == "float32" and engine.is_exact(field)
    least = 0.0 if others > 0 else EXACT_SHARE if is_exact else SHARE
    _refuse(f"{engine.place} {field.name}", field.store, agreement, least)
    return agreement


def _refuse(place: str, store: Store, agreement: Agreement, least: float) -> None:
    if agreement.difference > TOLERANCE.get(store, np.inf):
        raise UserError(
            place, "scores documents otherwise than the model", got=f"a difference of {agreement.difference:.2g}",
            cure="Remove the collection and load again; where that does not help, check the engine's version",
        )  # fmt: skip
    if agreement.overlap < least:
        is_exact = least == EXACT_SHARE
        raise UserError(
            place, f"finds other documents than exact search in {agreement.num_queries} queries",
            got=f"{agreement.overlap:.1%} in common",
            cure="Remove the collection and load again" if is_exact else "Take a finer --store, or no index",
        )  # fmt: skip


def _off(ours: float, theirs: float) -> float:
    return abs(ours - theirs) / max(1.0, abs(ours))


def _share(mine: Sequence[Found], found: Sequence[Found], tolerance: float) -> float:
    """Return how many of our results the engine has; another one that scores as our last counts for one of the last."""
    wanted, last = {one.id for one in mine}, mine[-1].score
    same = sum(one.id in wanted for one in found)
    equal = sum(one.id not in wanted and _off(last, one.score) <= tolerance for one in found)
    return min(1.0, (same + equal) / len(mine))
