"""The gain on queries whose answers trained, and on the others: a model may know documents rather than have learned to search."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from embedtrain.data.examples import SourceConfig
from embedtrain.data.linked_texts import node_of
from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.sources import open_source
from embedtrain.evaluation.measures.statistics import FEWEST, compare_paired
from embedtrain.evaluation.probes.overlap import query_overlap
from embedtrain.evaluation.results.result import EvaluationResult
from embedtrain.evaluation.tasks.retrieval import METRICS

SEEN, NEW = "answers_trained", "answers_new"


def by_what_trained(
    task: RetrievalTask, rows: str, before: EvaluationResult, after: EvaluationResult
) -> dict[str, Any]:
    """Return the overlap of a test with the rows that trained, and gains on both kinds of its queries, as ``gate.json`` has it.

    A kind of too few queries for an interval has a mean only. The kinds cannot be told apart where something trained that is
    no document as it is searched, such as what rules leave of one.
    """
    examples = list(open_source(SourceConfig(path=rows)).examples())
    trained = {node_of(text) for one in examples for text in one.positives}
    overlap = query_overlap(task.queries, (one.query for one in examples))
    texts = dict(zip(task.document_ids, task.documents, strict=True))
    if not trained <= {node_of(text) for text in task.documents}:
        return {"train_overlap": overlap}
    seen = {
        query: any(node_of(texts[name]) in trained for name, grade in found.items() if grade >= 1)
        for query, found in task.qrels.items()
    }
    gains = {
        name: _gain(before, after, [query for query, found in seen.items() if found is known])
        for name, known in ((SEEN, True), (NEW, False))
    }
    return {
        "train_overlap": overlap,
        "by_answers": {name: gain for name, gain in gains.items() if gain is not None},
    }


def _gain(
    before: EvaluationResult, after: EvaluationResult, queries: list[str]
) -> Mapping[str, Any] | None:
    if not queries:
        return None
    both = [[result.per_query[METRICS[0]][one] for one in queries] for result in (after, before)]
    ours, theirs = map(np.array, both)
    if len(queries) < FEWEST:
        return {"num": len(queries), "difference": float((ours - theirs).mean())}
    return asdict(compare_paired(ours, theirs))
