"""Workflow: a model and data of any kind of task become result files; what was done before is kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from embedtrain.contract.long_inputs import LongInputs
from embedtrain.encoding.shards import current_shard, use_own_device
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.efficiency import Efficiency, describe_machine, price_work
from embedtrain.evaluation.measures.metrics import Run
from embedtrain.evaluation.results.ranking_file import written_beside
from embedtrain.evaluation.results.report import compare, refuse_single, summarise
from embedtrain.evaluation.results.result import EvaluationResult, load_result, write_result
from embedtrain.evaluation.tasks.base import Task
from embedtrain.evaluation.tasks.discovery import open_task
from embedtrain.evaluation.tasks.retrieval import Retrieval
from embedtrain.evaluation.tasks.smaller import Pruning, Sample, pruned, sampled, tags_of
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.files import check_file, check_folder, default_cache
from embedtrain.locks import owns
from embedtrain.models.build import load_encoder
from embedtrain.models.dense.late_chunking import chunk_late
from embedtrain.models.edits.lengthen import lengthen_encoder
from embedtrain.models.encoder import TextEncoder
from embedtrain.precision import Precision
from embedtrain.progress import console
from embedtrain.retrieval.compression import Compression
from embedtrain.workflows.evaluate import engine
from embedtrain.workflows.evaluate.cost import measure_cost
from embedtrain.workflows.evaluate.index_cost import measure_index
from embedtrain.workflows.evaluate.stored import settled
from embedtrain.workflows.evaluate.train_overlap import train_overlap

NO_RUN: Run = {}


@dataclass(frozen=True)
class Wish:
    """What the user wants evaluated."""

    data: Sequence[str]
    """Files and folders; see :func:`embedtrain.evaluation.tasks.files.find_files`."""
    split: str | None = None
    task: str | None = None
    """Kind of task; None finds out."""
    clusters: str | None = None
    """Column of labels of queries or items that are not independent."""
    baseline: Path | None = None
    """Another model's result file, or folder of them, for a paired test."""
    efficiency: bool = True
    """Time retrieval as well."""
    compression: Compression = field(default_factory=Compression)
    """How vectors are cut and, in retrieval, stored."""
    price_per_hour: float | None = None
    """Of the machine that is timed, in any currency."""
    instruction: str | None = None
    """Name of one of the model's, whose prompts take the place of the usual ones."""
    long_inputs: LongInputs | None = None
    """How documents may be longer than the model was trained on."""
    late_chunks: int | None = None
    """Tokens of a chunk, where documents are found by their best chunk."""
    precision: Precision = "auto"
    """What the network computes in."""
    index: str | None = None
    """Words of an index, as for :func:`embedtrain.retrieval.indexes.read_index`, or the address of a collection that holds
    the documents; None searches exactly."""
    sample: Sample | None = None
    """Measure on a smaller corpus, of what rankings found."""
    pruning: Pruning | None = None
    """Leave out documents; None keeps all."""


@owns("output")
def evaluate_tasks(
    model: str, wish: Wish, output: Path | None = None, encoder: TextEncoder | None = None
) -> list[EvaluationResult]:
    """Evaluate a model on each piece of data and return the results in that order.

    Processes that torchrun has started share the encoding by the cache, and the first writes what it would have found
    alone. Cost is not measured then: a process that others work beside has none of its own.

    Args:
        model: Model folder, run's ``model/`` or Hub id.
        wish: Data, split and statistics.
        output: A ``.json`` file for one task, or a folder of ``<name>.<split>.json`` for any number; in it tasks that
            this model has done already are not done again. Rankings go beside a result, in TREC's format.
        encoder: The model, where it is loaded already.

    Raises:
        UserError: If data or output cannot be used; all data is opened before the work starts.
    """
    shard = current_shard()
    refuse_price(wish, shard.ranks)
    if shard.ranks > 1:
        use_own_device()
        wish = replace(wish, efficiency=False)
    if not wish.data:
        raise UserError("--data", "is missing", cure="Name a file or folder")
    tasks = open_tasks(wish)
    places = result_places(tasks, output)
    baselines = [load_baseline(task, wish.baseline) for task in tasks]
    if wish.compression.quantize is not None:
        advice = "; --dim works for all"
        check_retrieval(tasks, "--quantize", "is for indexes of retrieval", advice)
    if wish.late_chunks is not None:
        check_retrieval(tasks, "--late-chunks", "is for documents of retrieval", "")
    check_index(tasks, wish)
    encoder = encoder or load_encoder(model, instruction=wish.instruction)
    wish = settled(wish, encoder, searches=any(isinstance(one, Retrieval) for one in tasks))
    encoder = chunk_late(lengthen_encoder(encoder, wish.long_inputs), wish.late_chunks)
    subject = Subject(
        encoder, model, default_cache(), wish.compression, wish.instruction, wish.precision, shard,
        engine.index_of(wish, encoder), str(wish.pruning or ""),
    )  # fmt: skip
    tasks = _smaller(tasks, wish, subject)
    results = []
    for task, place, baseline in zip(tasks, places, baselines, strict=True):
        result, run = _resume(subject, task, wish, place), NO_RUN
        if result is None:
            result, run = evaluate_task(subject, task, wish)
        if baseline is not None:
            result = compare(result, baseline, str(wish.baseline))
        if place is not None and shard.is_first:
            with written_beside(run, place.with_suffix(".trec"), subject.key[:12]):
                write_result(result, place)
        results.append(result)
    return results


def open_tasks(wish: Wish) -> list[Task]:
    """Open the data, on a smaller corpus where that is wished."""
    tasks = [open_task(path, wish.split, wish.task) for path in wish.data]
    if wish.pruning is not None:
        check_retrieval(tasks, "--keep", "is for corpora of retrieval", "")
    if wish.sample is None:
        return tasks
    check_retrieval(tasks, "--sample", "is for corpora of retrieval", "")
    return [sampled(task, wish.sample) for task in tasks if isinstance(task, Retrieval)]


def _smaller(tasks: list[Task], wish: Wish, subject: Subject) -> list[Task]:
    """Leave documents out where that is wished, and say of a pool that it is not this model's."""
    if wish.sample is not None and subject.key[:12] not in tags_of(wish.sample.runs):
        console.print(f"{subject.name} has no ranking in the pool, which favours it")
    if wish.pruning is None:
        return tasks
    return [pruned(task, wish.pruning, subject) for task in tasks if isinstance(task, Retrieval)]


def evaluate_task(subject: Subject, task: Task, wish: Wish) -> tuple[EvaluationResult, Run]:
    """Run one task and add intervals, by cluster where the user names a column; return its ranking too."""
    if isinstance(task, Retrieval):
        task = task.read_by(subject.model)
    found: dict[str, object] = {"train_overlap": train_overlap(task)}
    cost = None
    with engine.searched_by_engine(subject, task, wish.index):
        outcome = task.run(subject)
        if wish.efficiency and isinstance(task, Retrieval):
            cost = measure_cost(subject, task.task, wish.price_per_hour)
        if subject.index is not None and isinstance(task, Retrieval):
            found["index"] = measure_index(subject, task.task, timed=wish.efficiency)
    result = summarise(
        outcome.per_query,
        task.data,
        model=subject.identity(),
        efficiency=cost,
        predictions=outcome.predictions,
        set_metrics=outcome.set_metrics,
        clusters=labels_of(task, wish),
    )
    return result.model_copy(update=found | {"ties": outcome.ties}), outcome.run


def check_index(tasks: Sequence[Task], wish: Wish) -> None:
    """Refuse an index where nothing is searched, or beside other words for the same.

    Raises:
        UserError: If there is one.
    """
    if wish.index is None:
        return
    if wish.compression.quantize is not None:
        problem, cure = "says how documents are stored", "Use --index int8 or --index binary alone"
        raise UserError("--index", f"{problem}, and so does --quantize", cure=cure)
    check_retrieval(tasks, "--index", "is for documents of retrieval", "")
    engine.check_engine(tasks, wish)


def check_retrieval(tasks: Sequence[Task], flag: str, purpose: str, advice: str) -> None:
    """Refuse tasks of other kinds, for which a flag means nothing."""
    odd = [task.data.name for task in tasks if not isinstance(task, Retrieval)]
    if odd:
        raise UserError(
            flag,
            f"{purpose}, which this task has none of",
            got=odd[0],
            cure=f"Leave out the task or the flag{advice}",
        )


def refuse_price(wish: Wish, ranks: int) -> None:
    """Refuse a price where nothing is timed, of which it would be a multiple."""
    if wish.price_per_hour is not None and (ranks > 1 or not wish.efficiency):
        raise UserError(
            "--price",
            "is worked out from the time that one process takes, which is not measured here",
            got=wish.price_per_hour,
            cure="Leave out --no-efficiency, and run one process",
        )


def result_places(tasks: Sequence[Task], output: Path | None) -> list[Path | None]:
    """Return the file that each result goes to."""
    if output is None:
        return [None] * len(tasks)
    if output.suffix == ".json":
        if len(tasks) > 1:
            raise UserError(
                "--output", "is one file for several tasks", got=str(output), cure="Name a folder"
            )
        check_file("--output", output)
        return [output]
    check_folder("--output", output)
    names = [f"{task.data.name}.{task.data.split}.json" for task in tasks]
    for name in names:
        if Path(name).name != name:
            cure = "Name the split as its file is, or name a .json file as --output"
            raise UserError("--split", "would lead out of --output", got=name, cure=cure)
    places = [output / name for name in names]
    if len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise UserError("--data", "names two tasks of one name and split", got=twice.stem)
    return list(places)


def labels_of(task: Task, wish: Wish) -> dict[str, str] | None:
    """Return the label of each item in the column that the user names, or None where he names none."""
    if wish.clusters is None:
        return None
    labels = task.clusters(wish.clusters)
    return {item: labels[item] for item in task.texts}


def _resume(
    subject: Subject, task: Task, wish: Wish, place: Path | None
) -> EvaluationResult | None:
    """Return what this very model did on this very data before, if it holds all that is wished."""
    if (
        place is None
        or place.suffix != ".json"
        or not place.is_file()
        or engine.is_engine(wish.index)
    ):
        return None
    try:
        found = load_result(place)
    except UserError:
        return None  # no result of ours: the new one replaces it, as a file named by the user always was
    if found.data != task.data or found.model is None or found.model != subject.identity():
        return None
    if found.clusters != labels_of(task, wish):
        return None  # its intervals are of other clusters, or of none
    cost = found.efficiency
    if wish.efficiency and isinstance(task, Retrieval):
        cost = _price_again(cost, wish.price_per_hour)
        if cost is None:
            return None
    console.print(f"{place}: done before, by the same weights on the same data")
    return found.model_copy(update={"comparison": None, "efficiency": cost})


def _price_again(cost: Efficiency | None, per_hour: float | None) -> Efficiency | None:
    """Give a cost that was measured before the price that is wished; None if it must be measured anew."""
    if cost is None or per_hour is None:
        return cost
    if cost.machine != describe_machine():
        return None  # the price is of this machine
    price = price_work(per_hour, cost.documents_per_second, cost.query_latency)
    return replace(cost, price=price)


def load_baseline(task: Task, baseline: Path | None) -> EvaluationResult | None:
    """Read the result that a task's is compared with, if the user names one.

    Raises:
        UserError: If it is of other data, or there is but one query.
    """
    if baseline is None:
        return None
    refuse_single(task.data.num_queries, f"--baseline: {task.data.name}")
    place = baseline
    if baseline.is_dir():
        place = baseline / f"{task.data.name}.{task.data.split}.json"
    result = load_result(place)
    if result.data.fingerprint != task.data.fingerprint:
        cure = "Evaluate the baseline on the same data and split"
        raise UserError(place, "was measured on other data", cure=cure)
    return result
