"""Single queries for a report: those that two models answer differently, and labels that look wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.evaluation.measures.metrics import lower_is_better
from embedtrain.evaluation.results.report import compare
from embedtrain.evaluation.results.result import EvaluationResult
from embedtrain.evaluation.tasks.base import Task
from embedtrain.evaluation.tasks.retrieval import Retrieval

AnyTask = Task | RetrievalTask
"""Data whose texts are known: what a command names, or what a recipe does."""


@dataclass(frozen=True)
class Changed:
    """A query that a system answers better or worse than the baseline."""

    item: str
    text: str
    document: str
    """The most relevant one, where the data is known and is one of retrieval."""
    value: float
    baseline: float
    counts_errors: bool = False

    @property
    def gain(self) -> float:
        """How much better the value is than the baseline's."""
        return self.baseline - self.value if self.counts_errors else self.value - self.baseline


@dataclass(frozen=True)
class Suspect:
    """A document without a judgment that scores above every judged positive: perhaps a missing label."""

    query: str
    document: str
    positive: str
    margin: float
    """How far it lies above the best positive, in scores of the model."""


def find_changes(
    result: EvaluationResult, baseline: EvaluationResult, task: AnyTask | None
) -> list[Changed]:
    """Return queries by how much better they are answered than by the baseline, largest gain first."""
    compare(result, baseline, "baseline", num_resamples=10)  # refuses what cannot be compared
    shared = [name for name in result.per_query if name in baseline.per_query]
    if not shared:
        return []
    ours, theirs = result.per_query[shared[0]], baseline.per_query[shared[0]]
    retrieval = task.task if isinstance(task, Retrieval) else task
    texts, answers = {}, {}
    if isinstance(retrieval, RetrievalTask):
        texts = dict(zip(retrieval.query_ids, retrieval.queries, strict=True))
        answers = _answers(retrieval)
    elif retrieval is not None:
        texts = retrieval.texts
    errors = lower_is_better(shared[0])
    changes = [
        Changed(item, texts.get(item, ""), answers.get(item, ""), ours[item], theirs[item], errors)
        for item in ours
    ]
    return sorted(changes, key=lambda one: (-one.gain, one.item))


def wins_and_losses(changes: Sequence[Changed]) -> tuple[list[Changed], list[Changed]]:
    """Return the queries that gained and those that lost, each with the largest change first."""
    wins = [one for one in changes if one.gain > 0]
    return wins, [one for one in reversed(changes) if one.gain < 0]


def _answers(task: RetrievalTask) -> dict[str, str]:
    """Return the text of each query's most relevant document."""
    documents = dict(zip(task.document_ids, task.documents, strict=True))
    best = {query: max(judged, key=judged.__getitem__) for query, judged in task.qrels.items()}
    return {query: documents[one] for query, one in best.items() if one in documents}


def find_suspects(task: Retrieval, run: Mapping[str, Mapping[str, float]]) -> list[Suspect]:
    """Return unjudged documents that a model prefers to every positive, largest margin first."""
    data = task.task
    documents = dict(zip(data.document_ids, data.documents, strict=True))
    suspects = []
    for query, text in task.texts.items():
        found, judged = run.get(query, {}), data.qrels[query]
        positives = {one: found[one] for one in judged if judged[one] >= 1 and one in found}
        others = {one: score for one, score in found.items() if one not in judged}
        if not positives or not others:
            continue
        best, right = max(others, key=others.__getitem__), max(positives, key=positives.__getitem__)
        margin = others[best] - positives[right]
        if margin > 0:
            suspects.append(Suspect(text, documents[best], documents[right], margin))
    return sorted(suspects, key=lambda one: -one.margin)
