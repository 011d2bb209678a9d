"""What finds the documents that a second stage orders anew: a model, BM25, or a ranking from a file."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.readers.text_lines import hash_files
from embedtrain.encoding.shards import current_shard
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.efficiency import (
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
from embedtrain.files import default_cache
from embedtrain.mining.bm25 import Bm25Index, Bm25Search
from embedtrain.models.build import load_encoder
from embedtrain.models.dense.late_chunking import chunk_late
from embedtrain.models.edits.lengthen import lengthen_encoder
from embedtrain.recipe.overrides import read_section
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.workflows.evaluate.asking import PLAIN, Asking, ask_model, ask_words
from embedtrain.workflows.evaluate.cost import measure_cost
from embedtrain.workflows.evaluate.engine import index_of
from embedtrain.workflows.evaluate.stored import settled
from embedtrain.workflows.evaluate.tasks import Wish

BM25, RUN = "bm25", "run:"
"""First stages that are no models: the word, and what stands before the path of a TREC run file."""
DEFAULTS = Bm25Search()


@dataclass(frozen=True)
class FirstStage:
    """What a first stage found for each query, in trec_eval's order, and what that costs."""

    model: EvaluatedModel
    found: SearchResult
    cost: Efficiency | None = None
    """None where it was not timed, or cannot be: nobody knows what a ranking from a file took."""


def is_model(first: str) -> bool:
    """Whether a first stage is a model that has to be loaded."""
    return not (first == BM25 or first.startswith((f"{BM25}:", RUN)))


def read_bm25(name: str) -> Bm25Search:
    """Read the settings of ``bm25:key=value,...``.

    Raises:
        UserError: If there is no such key, or not such a value.
    """
    words = name.removeprefix(BM25).removeprefix(":").split(",")
    return read_section(Bm25Search, [word for word in words if word], BM25)


def refuse_model_settings(first: str, *settings: object) -> None:
    """Refuse settings of a model where there is none.

    Raises:
        UserError: If one of them is given.
    """
    if not is_model(first) and any(one is not None for one in settings):
        problem = "are for a first stage that is a model"
        raise UserError("--instruction, --long-inputs and --late-chunks", problem, got=first)


@dataclass(frozen=True)
class System:
    """What finds documents, opened."""

    name: str
    """A model, ``bm25``, ``bm25:key=value,...``, or ``run:FILE``."""
    subject: Subject | None = None
    """The model, if it is one."""


def open_system(name: str, wish: Wish) -> System:
    """Load what finds documents, if it has to be.

    Raises:
        UserError: If it cannot be, or takes no part of what is wished.
    """
    if not is_model(name):
        refuse_model_settings(name, wish.instruction, wish.long_inputs, wish.late_chunks)
        if not name.startswith(RUN):
            read_bm25(name)
        return System(name)
    encoder = lengthen_encoder(load_encoder(name, instruction=wish.instruction), wish.long_inputs)
    wish = settled(wish, encoder, searches=True)
    subject = Subject(
        chunk_late(encoder, wish.late_chunks),
        name,
        default_cache(),
        wish.compression,
        wish.instruction,
        wish.precision,
        current_shard(),
        index_of(wish, encoder),
    )
    return System(name, subject)


def find_first(
    system: System, task: Retrieval, wish: Wish, depth: int, asking: Asking = PLAIN
) -> FirstStage:
    """Search the whole corpus for every query of a task; only queries asked as they are are timed."""
    if system.subject is not None:
        task = task.read_by(system.subject.model)
    if asking and not system.name.startswith(RUN):
        return _find_asked(system, task, depth, asking)
    timed, price, name = wish.efficiency, wish.price_per_hour, system.name
    if system.subject is not None:
        return search_model(system.subject, task, depth, timed=timed, price=price)
    if not name.startswith(RUN):
        return search_words(task.task, depth, timed=timed, price=price, config=read_bm25(name))
    return read_ranking(Path(name.removeprefix(RUN)).expanduser(), task.task, depth)


def _find_asked(system: System, task: Retrieval, depth: int, asking: Asking) -> FirstStage:
    if system.subject is not None:
        found, model = ask_model(system.subject, task, asking, depth), system.subject.identity()
    else:
        index = Bm25Index(read_bm25(system.name), task.task.documents)
        found, model = ask_words(index, task, asking, depth), describe_bm25(index)
    model = model.model_copy(update={"settings": model.settings | asking.settings(task)})
    return FirstStage(model, in_trec_order(found, task.task.document_ids))


def search_model(
    subject: Subject, task: Retrieval, depth: int, *, timed: bool, price: float | None
) -> FirstStage:
    """Search the whole corpus with a model."""
    data = task.task
    found = subject.search(data.queries, data.documents, depth, "query")
    cost = measure_cost(subject, data, price) if timed else None
    return FirstStage(subject.identity(), in_trec_order(found, data.document_ids), cost)


def search_words(
    task: RetrievalTask,
    depth: int,
    *,
    timed: bool,
    price: float | None,
    config: Bm25Search = DEFAULTS,
) -> FirstStage:
    """Search the whole corpus by BM25."""
    index, per_second = measure_throughput(
        lambda: Bm25Index(config, task.documents), len(task.documents)
    )
    cost = None
    if timed:
        latency = measure_latency(lambda query: index.search([query], depth), task.queries)
        cost = cost_of_search(len(task.documents), per_second, latency, index.num_bytes, price)
    found = index.search(task.queries, depth)
    return FirstStage(describe_bm25(index), in_trec_order(found, task.document_ids), cost)


def describe_bm25(index: Bm25Index) -> EvaluatedModel:
    """Name BM25 by all that its scores depend on."""
    config = index.config
    settings = {"k1": config.k1, "b": config.b, "bm25s": index.version}
    settings |= config.model_dump(include={"stopwords", "stemmer"}, exclude_defaults=True)
    weights = hashlib.sha256(f"bm25 {settings}".encode()).hexdigest()
    return EvaluatedModel(name=BM25, weights=weights, settings=settings)


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
        with np.errstate(over="ignore"):
            scores = np.array(list(own.values()), dtype=np.float64).astype(np.float32)
        if not np.isfinite(scores).all():
            problem = "has a score that is no finite number of 32 bits"
            raise UserError(f"{path} query {query}", problem, cure=cure)
    if not any(lists):
        raise UserError(path, "lists none of the queries", cure="Give the run of these queries")
    found = SearchResult.empty(len(lists), max(map(len, lists)))
    for row, own in enumerate(lists):
        found.indices[row, : len(own)] = [row_of[name] for name in own]
        found.scores[row, : len(own)] = list(own.values())
    ordered = in_trec_order(found, task.document_ids)
    kept = SearchResult(ordered.indices[:, :depth], ordered.scores[:, :depth])
    return FirstStage(EvaluatedModel(name=path.stem, weights=hash_files([path])), kept)
