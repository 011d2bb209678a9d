"""From the predictions that mteb saved to our own results: per query, with intervals, and checked."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from mteb.abstasks.classification import AbsTaskClassification
from mteb.abstasks.pair_classification import AbsTaskPairClassification
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining

from embedtrain.evaluation.measures.metrics import score_run
from embedtrain.evaluation.results.report import summarise
from embedtrain.evaluation.results.result import (
    EvaluatedData,
    EvaluatedModel,
    EvaluationResult,
    Predictions,
)
from embedtrain.evaluation.tasks.base import Outcome
from embedtrain.evaluation.tasks.bitext_mining import bitext_scores

METRICS = ("ndcg_at_10", "mrr_at_10", "map_at_100", "recall_at_100", "precision_at_10")
ROUNDED = 1.1e-5
"""mteb rounds some scores to five decimals."""


def recompute(
    task: Any,  # noqa: ANN401 - a task of mteb, its data loaded
    predictions: Mapping[str, Any],
    scores: Mapping[str, Any],
    subset: str,
    split: str,
    model: EvaluatedModel,
) -> EvaluationResult | None:
    """Score the saved predictions of one subset and split again.

    None where mteb saves nothing that belongs to single items, as in clustering.

    Raises:
        RuntimeError: If a score is not the one that mteb wrote.
    """
    data = task.dataset.get(subset, task.dataset)[split]
    outcome = _outcome(task, predictions[subset][split], data)
    if outcome is None:
        return None
    items = outcome.per_query or {"": dict(getattr(outcome.predictions, "predicted", {}))}
    retrieval = isinstance(task, AbsTaskRetrieval)
    result = summarise(
        outcome.per_query,
        EvaluatedData(
            name=task.metadata.name if subset == "default" else f"{task.metadata.name}.{subset}",
            split=split,
            fingerprint=f"mteb {task.metadata.dataset['revision']}",
            num_queries=len(next(iter(items.values()))),
            num_documents=len(data["corpus"]) if retrieval else len(data),
            task=str(task.metadata.type),
        ),
        model=model,
        predictions=outcome.predictions,
        set_metrics=outcome.set_metrics,
    )
    _check(task, result, scores)
    return result


def _outcome(task: Any, predictions: Any, data: Any) -> Outcome | None:  # noqa: ANN401
    if isinstance(task, AbsTaskRetrieval):
        return _ranked(task, predictions, data["relevant_docs"])
    if isinstance(task, AbsTaskSTS):
        gold = [float(value) for value in data["score"]]
        return _compared(predictions["similarity_scores"], gold, ("spearman", "pearson"))
    if isinstance(task, AbsTaskPairClassification):
        labels = data[0] if len(data) == 1 else data
        gold = [float(value) for value in labels[task.label_column_name]]
        return _compared(predictions["similarity_scores"], gold, ("average_precision",))
    if isinstance(task, AbsTaskBitextMining) and not task.parallel_subsets and "gold" not in data:
        found = np.array([one["corpus_id"] for one in predictions["sentence1-sentence2"]])
        return Outcome(bitext_scores(found, [str(n) for n in range(1, len(found) + 1)]))
    if isinstance(task, AbsTaskClassification) and not task.is_cross_validation:
        return _classified(predictions, list(data[task.label_column_name]))
    return None


def _ranked(task: Any, run: dict[str, dict[str, float]], qrels: Any) -> Outcome:  # noqa: ANN401
    if task.ignore_identical_ids:
        run = {q: {d: s for d, s in found.items() if d != q} for q, found in run.items()}
    labels = {
        query: {document: int(label) for document, label in found.items()}
        for query, found in qrels.items()
        if found
    }
    return Outcome(score_run(labels, run, METRICS), run=run)


def _compared(predicted: list[float], expected: list[float], metrics: tuple[str, ...]) -> Outcome:
    items = [str(number) for number in range(1, len(expected) + 1)]
    predictions = Predictions(
        predicted=dict(zip(items, map(float, predicted), strict=True)),
        expected=dict(zip(items, expected, strict=True)),
    )
    return Outcome({}, predictions, metrics)


def _classified(predictions: list[list[Any]], labels: list[Any]) -> Outcome:
    right = np.mean([np.array(one) == np.array(labels) for one in predictions], axis=0)
    return Outcome({"accuracy": {str(n): value for n, value in enumerate(right.tolist(), 1)}})


def _check(task: Any, result: EvaluationResult, scores: Mapping[str, Any]) -> None:  # noqa: ANN401
    """Compare each metric that mteb has too."""
    if getattr(task, "skip_first_result", False):
        return
    theirs = {"spearman": "spearman", "pearson": "pearson", "average_precision": "similarity_ap"}
    for name, interval in result.metrics.items():
        key = theirs.get(name, name)
        if key in scores and not abs(interval.value - scores[key]) <= ROUNDED:
            raise RuntimeError(
                f"{task.metadata.name}: {name} is {interval.value}, but mteb wrote {scores[key]}"
            )
