"""Score a model from Python."""

from pathlib import Path

from embedtrain.api.model import Model, load
from embedtrain.data.given import keep_task
from embedtrain.errors import UserError
from embedtrain.evaluation.results.report import compare, refuse_single
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

    Args:
        model: A path or Hub id, or what :func:`load` returned.
        data: A BEIR folder, ``python_docs``, or rows of any kind of task. Or leave it out and give the next three.
        queries: Id to text, texts (ids count from 0), or rows or a frame with ``_id`` and ``text``.
        documents: The same.
        qrels: Query id to a list of ids of documents, or to id to grade; or rows of BEIR's three columns.
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
    path = _path_of(data, queries, documents, qrels)
    loaded = model if isinstance(model, Model) else load(model)
    wish = Wish([path], split, task, efficiency=efficiency)
    return _score(loaded, wish, baseline, None if output is None else Path(output))


def _score(
    model: Model, wish: Wish, baseline: EvaluationResult | None, output: Path | None
) -> EvaluationResult:
    """Evaluate, and compare where there is a baseline."""
    if baseline is not None:
        refuse_single(baseline.data.num_queries, "baseline")
    result = evaluate_tasks(model.path, wish, output, model.encoder)[0]
    if baseline is None:
        return result
    result = compare(result, baseline, "baseline")
    if output is not None:
        write_result(result, output)
    return result


def _path_of(data: str | Path | None, queries: object, documents: object, qrels: object) -> str:
    """Return where the data lie; queries, documents and qrels in memory are written first."""
    given = sum(part is not None for part in (queries, documents, qrels))
    if given != (3 if data is None else 0):
        raise UserError("evaluate", "takes either data, or queries, documents and qrels, all three")
    return str(keep_task(queries, documents, qrels) if data is None else data)
