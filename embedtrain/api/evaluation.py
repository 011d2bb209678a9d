"""Score a model from Python."""

from pathlib import Path

from embedtrain.api.model import Model, load
from embedtrain.data.given import keep_task
from embedtrain.errors import UserError
from embedtrain.evaluation.results.report import compare
from embedtrain.evaluation.results.result import EvaluationResult, write_result
from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks


def evaluate(
    model: str | Path | Model,
    data: str | Path | None = None,
    *,
    queries: object = None,
    documents: object = None,
    qrels: object = None,
    split: str | None = None,
    task: str | None = None,
    baseline: EvaluationResult | None = None,
    efficiency: bool = False,
    output: str | Path | None = None,
) -> EvaluationResult:
    """Score a model on a task, with 95 % intervals, as ``embedtrain evaluate`` does.

    Give either ``data``, or ``queries``, ``documents`` and ``qrels``.

    Args:
        model: A path or Hub id, or what :func:`load` returned.
        data: A BEIR folder, ``python_docs``, or rows of any kind of task.
        queries: Id to text, texts (ids count from 0), or rows or a frame with ``_id`` and ``text``.
        documents: The same.
        qrels: Query id to the ids of its relevant documents, or to document id to grade; or rows or a frame
            with ``query-id``, ``corpus-id`` and ``score``.
        split: Which judgments of ``data``.
        task: Kind of task, where ``data`` could be of several, or ``package.module:Class`` of your own.
        baseline: Another model's result on the same data, for a paired test.
        efficiency: Time encoding and search as well.
        output: A ``.json`` file to write.

    Returns:
        The result: ``result.metrics["ndcg_at_10"]`` has ``value``, ``low`` and ``high``.

    Raises:
        UserError: If model or data cannot be used.
    """
    parts = (queries, documents, qrels)
    given = sum(part is not None for part in parts)
    if given != (3 if data is None else 0):
        raise UserError("evaluate", "takes either data, or queries, documents and qrels, all three")
    loaded = model if isinstance(model, Model) else load(model)
    path = str(keep_task(*parts) if data is None else data)
    wish = Wish([path], split, task, efficiency=efficiency)
    place = None if output is None else Path(output)
    result = evaluate_tasks(loaded.path, wish, place, loaded.encoder)[0]
    if baseline is not None:
        result = compare(result, baseline, "baseline")
        if place is not None:
            write_result(result, place)
    return result
