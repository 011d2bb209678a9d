"""Documents found by their best unit: propositions or chunks are searched, documents are judged."""

import copy
from collections.abc import Callable
from dataclasses import replace

from embedtrain.data.readers.text_lines import hash_files
from embedtrain.data.readers.units import FILE, Units, read_units
from embedtrain.evaluation.measures.efficiency import Efficiency, price_work
from embedtrain.evaluation.measures.second_stage import in_trec_order
from embedtrain.evaluation.tasks.retrieval import Retrieval
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.ranking import find_owners
from embedtrain.workflows.evaluate.first_stage import FirstStage

Find = Callable[[Retrieval, int, bool], FirstStage]
"""Searches a task for so many results of each query, and times that if it is told to."""


def find_by_units(find: Find, task: Retrieval, depth: int) -> FirstStage:
    """Search the units of a task's documents, and put each document where its best unit stands.

    Raises:
        UserError: If the folder has no units, or they cannot be used.
    """
    units = units_of(task)
    view, stages = with_units(task, units), list[FirstStage]()

    def fetch(number: int) -> SearchResult:
        stages.append(find(view, number, not stages))
        return stages[-1].found

    found = in_trec_order(find_owners(fetch, units.owner, depth), task.task.document_ids)
    stage = stages[0]  # the one that was timed
    said = {"units": hash_files([task.files.path / FILE])[:12]}
    model = stage.model.model_copy(update={"settings": stage.model.settings | said})
    return FirstStage(model, found, _of_documents(stage.cost, len(task.task.documents)))


def units_of(task: Retrieval) -> Units:
    """Read the units of a task's documents.

    Raises:
        UserError: If the folder has none, or they cannot be used.
    """
    return read_units(task.files.path, task.task.document_ids)


def with_units(task: Retrieval, units: Units) -> Retrieval:
    """Return the task with units in place of documents; its judgments are not for use."""
    view = copy.copy(task)
    view.task = replace(task.task, document_ids=units.ids, documents=units.texts)
    return view


def _of_documents(cost: Efficiency | None, num_documents: int) -> Efficiency | None:
    """Turn what units cost into what the documents that they are of cost."""
    if cost is None:
        return None
    share, price = cost.num_documents / num_documents, cost.price
    speed = cost.documents_per_second / share
    return replace(
        cost,
        num_documents=num_documents,
        documents_per_second=speed,
        bytes_per_document=cost.bytes_per_document * share,
        price=price and price_work(price.per_hour, speed, cost.query_latency),
    )
