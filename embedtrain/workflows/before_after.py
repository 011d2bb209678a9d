"""Measure a model before and after training, and find a query that shows the difference."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedtrain.data.examples import Source
from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.evaluation.probes.overlap import query_overlap
from embedtrain.evaluation.results.report import compare
from embedtrain.evaluation.results.result import load_result, write_result
from embedtrain.evaluation.tasks.retrieval import METRICS
from embedtrain.files import write_json
from embedtrain.models.encoder import TextEncoder
from embedtrain.progress import progress_bar
from embedtrain.recipe.run_files import read_summary
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.training.settings import TaskConfig
from embedtrain.workflows.evaluate.model import Measured, search_and_measure
from embedtrain.workflows.summary import note, timed

TOP = 3
"""Results shown for a query."""
QUERIES = 1_000
"""Queries whose first results are kept until the end of the run, to choose an example among them."""


def measure_before(
    run: RunFolder, model: TextEncoder, task: RetrievalTask, asked: TaskConfig, cache: Path
) -> None:
    """Measure the model that training begins with, as the recipe asks for it."""
    with timed(run, "before"):
        before = _measure(model, task, asked, "Before training", cache)
    note(run, results_before=first_results(task, before.found))
    write_result(before.result, run.before)


def measure_after(
    run: RunFolder,
    trained: TextEncoder,
    task: RetrievalTask,
    asked: TaskConfig,
    cache: Path,
    sources: Sequence[Source],
) -> None:
    """Measure the trained model, compare it with the one before, and look for its queries in ``sources``."""
    before = load_result(run.before)
    measured = _measure(trained, task, asked, "After training", cache)
    after = compare(measured.result, before, "before training")
    seen = query_overlap(task.queries, _queries(sources))
    after = after.model_copy(update={"train_overlap": seen})
    found, old = first_results(task, measured.found), read_summary(run).get("results_before", {})
    main = METRICS[0]
    gains = {q: after.per_query[main][q] - before.per_query[main][q] for q in found}
    note(run, example=choose_example(task, old, found, gains))
    both = {"before": before.to_json(), "after": after.to_json()}
    write_json(run.evaluation, both)


def _measure(
    model: TextEncoder, task: RetrievalTask, asked: TaskConfig, title: str, cache: Path
) -> Measured:
    return search_and_measure(
        model, task, asked.label, title, cache=cache, precision=asked.precision
    )


def _queries(sources: Sequence[Source]) -> Iterator[str]:
    for source in sources:
        with progress_bar(f"Looking for test queries in {source.place}", None) as advance:
            for example in source.examples():
                yield example.query
                advance(1)


def first_results(task: RetrievalTask, found: SearchResult) -> dict[str, list[str]]:
    """Return the ids of the first results of the first queries."""
    rows = found.indices[:QUERIES, :TOP].tolist()
    return {
        query: [task.document_ids[place] for place in places if place >= 0]
        for query, places in zip(task.query_ids, rows, strict=False)
    }


def choose_example(
    task: RetrievalTask,
    before: Mapping[str, Sequence[str]],
    after: Mapping[str, Sequence[str]],
    gains: Mapping[str, float],
) -> dict[str, Any] | None:
    """Return the query that gained most among those whose first result became right.

    ``gains`` are differences of the main metric. None if no query did; of equal gains the first query.
    """

    def improved(query: str) -> bool:
        relevant = {name for name, grade in task.qrels[query].items() if grade > 0}
        return not relevant & set(before[query]) and bool(relevant & set(after[query][:1]))

    queries = [query for query in after if query in before and improved(query)]
    if not queries:
        return None
    best = max(queries, key=lambda query: gains[query])
    texts = dict(zip(task.document_ids, task.documents, strict=True))

    def shown(ids: Sequence[str]) -> list[dict[str, object]]:
        judged = task.qrels[best]
        return [{"id": i, "text": texts[i], "relevant": judged.get(i, 0) > 0} for i in ids]

    query = task.queries[task.query_ids.index(best)]
    return {"query": query, "before": shown(before[best]), "after": shown(after[best])}
