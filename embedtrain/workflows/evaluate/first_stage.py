"""What finds the documents that a second stage orders anew: a model, BM25, or a ranking from a file."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.readers.text_lines import hash_files
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.efficiency import (
    TIMED_QUERIES,
    Efficiency,
    cost_of_search,
    measure_latency,
    measure_throughput,
)
from embedtrain.evaluation.measures.second_stage import in_trec_order
from embedtrain.evaluation.results.ranking_file import read_run
from embedtrain.evaluation.results.result import EvaluatedModel
from embedtrain.evaluation.tasks.retrieval import Retrieval
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.mining.bm25 import Bm25Index, Bm25Search
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.workflows.evaluate.cost import measure_cost

BM25, RUN = "bm25", "run:"
"""First stages that are no models: the word, and what stands before the path of a TREC run file."""


@dataclass(frozen=True)
class FirstStage:
    """What a first stage found for each query, in trec_eval's order, and what that costs."""

    model: EvaluatedModel
    found: SearchResult
    cost: Efficiency | None = None
    """None where it was not timed, or cannot be: nobody knows what a ranking from a file took."""


def is_model(first: str) -> bool:
    """Whether a first stage is a model that has to be loaded."""
    return first != BM25 and not first.startswith(RUN)


def refuse_model_settings(first: str, *settings: object) -> None:
    """Refuse settings of a model where there is none.

    Raises:
        UserError: If one of them is given.
    """
    if not is_model(first) and any(one is not None for one in settings):
        problem = "are for a first stage that is a model"
        raise UserError("--instruction, --long-inputs and --late-chunks", problem, got=first)


def search_model(
    subject: Subject, task: Retrieval, depth: int, *, timed: bool, price: float | None
) -> FirstStage:
    """Search the whole corpus with a model."""
    data = task.task
    found = subject.search(data.queries, data.documents, depth, "query")
    cost = measure_cost(subject, data, price) if timed else None
    return FirstStage(subject.identity(), in_trec_order(found, data.document_ids), cost)


def search_words(
    task: RetrievalTask, depth: int, *, timed: bool, price: float | None
) -> FirstStage:
    """Search the whole corpus by BM25."""
    config = Bm25Search()
    index, per_second = measure_throughput(
        lambda: Bm25Index(config, task.documents), len(task.documents)
    )
    cost = None
    if timed:
        latency = measure_latency(
            lambda query: index.search([query], depth), task.queries, num_calls=TIMED_QUERIES
        )
        cost = cost_of_search(len(task.documents), per_second, latency, index.num_bytes, price)
    settings = {"k1": config.k1, "b": config.b, "bm25s": index.version}
    weights = hashlib.sha256(f"bm25 {settings}".encode()).hexdigest()
    found = index.search(task.queries, depth)
    model = EvaluatedModel(name=BM25, weights=weights, settings=settings)
    return FirstStage(model, in_trec_order(found, task.document_ids), cost)


def read_ranking(path: Path, task: RetrievalTask, depth: int) -> FirstStage:
    """Read a TREC run file; queries that it does not list have no results.

    Raises:
        UserError: If it names a document that the corpus lacks, or none of the queries.
    """
    run = read_run(path)
    row_of = {name: row for row, name in enumerate(task.document_ids)}
    cure = "Give the run of this corpus"
    lists = [run.get(query, {}) for query in task.query_ids]
    for query, own in zip(task.query_ids, lists, strict=True):
        if unknown := [name for name in own if name not in row_of]:
            problem = "names a document that the data lack"
            raise UserError(f"{path} query {query}", problem, got=unknown[0], cure=cure)
        if not all(np.isfinite(list(own.values()))):
            raise UserError(f"{path} query {query}", "has a score that is not finite", cure=cure)
    if not any(lists):
        raise UserError(path, "lists none of the queries", cure="Give the run of these queries")
    found = SearchResult.empty(len(lists), max(map(len, lists)))
    for row, own in enumerate(lists):
        found.indices[row, : len(own)] = [row_of[name] for name in own]
        found.scores[row, : len(own)] = list(own.values())
    ordered = in_trec_order(found, task.document_ids)
    kept = SearchResult(ordered.indices[:, :depth], ordered.scores[:, :depth])
    return FirstStage(EvaluatedModel(name=path.stem, weights=hash_files([path])), kept)
