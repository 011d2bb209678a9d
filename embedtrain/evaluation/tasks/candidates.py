"""Scores of a few candidates per query, each distinct text encoded once."""

from collections.abc import Mapping

import numpy as np

from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.retrieval.late_interaction.rerank import rerank
from embedtrain.types import TokenVectors


def score_candidates(
    subject: Subject, queries: Mapping[str, str], candidates: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, float]]:
    """Score each query against its own candidates; return query id to document id to score."""
    row_of: dict[str, int] = {}
    for found in candidates.values():
        for text in found.values():
            row_of.setdefault(text, len(row_of))
    names = list(candidates)
    asked = subject.encode([queries[name] for name in names], "query")
    documents = subject.encode(list(row_of), "document")
    run = {}
    for number, name in enumerate(names):
        rows = np.array([row_of[text] for text in candidates[name].values()], dtype=np.int64)
        if isinstance(asked, TokenVectors):
            assert isinstance(documents, TokenVectors)
            one = asked.part(number, number + 1)
            best = rerank(one, documents, rows[None], len(np.unique(rows)))
            score_of = dict(zip(best.indices[0].tolist(), best.scores[0].tolist(), strict=True))
            scores = [score_of[row] for row in rows.tolist()]
        else:
            assert isinstance(documents, np.ndarray)
            scores = (documents[rows] @ asked[number]).tolist()
        run[name] = dict(zip(candidates[name], scores, strict=True))
    return run
