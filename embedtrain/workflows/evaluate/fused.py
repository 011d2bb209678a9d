"""Workflow: several systems search the same corpus, their lists become one, and all of it is measured."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from embedtrain.encoding.shards import current_shard, use_own_device
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.metrics import PerQuery, rank_arrays, score_ranking
from embedtrain.evaluation.results.fusion import FOUND, describe_parts
from embedtrain.evaluation.results.ranking_file import written_beside
from embedtrain.evaluation.results.report import compare, refuse_single, summarise
from embedtrain.evaluation.results.result import (
    EvaluationResult,
    FusedSystems,
    Tuning,
    write_result,
)
from embedtrain.evaluation.results.wording import model_name
from embedtrain.evaluation.tasks.retrieval import METRICS, RESULTS, Retrieval, as_run
from embedtrain.files import check_folder
from embedtrain.locks import owns
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.workflows.evaluate.asking import PLAIN
from embedtrain.workflows.evaluate.first_stage import FirstStage
from embedtrain.workflows.evaluate.systems import DEPTH, Found, Fusing, open_systems
from embedtrain.workflows.evaluate.tasks import (
    Wish,
    check_index,
    check_retrieval,
    labels_of,
    load_baseline,
    open_tasks,
    refuse_price,
    result_places,
)
from embedtrain.workflows.evaluate.train_overlap import train_overlap


@owns("output")
def evaluate_fused(
    first: str, wish: Wish, fusing: Fusing, output: Path | None = None
) -> list[EvaluationResult]:
    """Measure the fusion of systems and each of them; return a result of the fusion for each piece of data.

    Of BM25 or a ranking alone it is their own result.

    Args:
        first: A model, ``bm25``, or ``run:FILE`` with a TREC run.
        wish: Data, split and statistics.
        fusing: The other systems, and the rule.
        output: A ``.json`` file for one task, or a folder of ``<name>.<split>.json``; rankings go beside.

    Raises:
        UserError: If data, systems or output cannot be used.
    """
    shard = current_shard()
    refuse_price(wish, shard.ranks)
    if shard.ranks > 1:
        use_own_device()
        wish = replace(wish, efficiency=False)
    tasks = open_retrieval(wish, "--with" if fusing.others else first)
    places = result_places(tasks, output)
    if fusing.save_runs is not None:
        check_folder("--save-runs", fusing.save_runs)
    untimed = replace(wish, efficiency=False)
    baselines = [load_baseline(task, wish.baseline) for task in tasks]
    if wish.baseline is not None and (fusing.asking or fusing.units):
        cure = "Leave --baseline out; embedtrain compare sets results beside each other"
        flags = "--forms, --feedback and --units"
        raise UserError(flags, "compare with queries and documents as they are", cure=cure)
    systems = open_systems(first, wish, fusing).check(tasks)
    results = []
    for task, place, baseline in zip(tasks, places, baselines, strict=True):
        found = systems.find(task, max(RESULTS, min(fusing.depth, DEPTH)))
        result, alone = measure_found(found, task, wish, fusing)
        result = result.model_copy(update={"index": systems.index_figures(task)})
        if baseline is not None:
            result = compare(result, baseline, str(wish.baseline))
        elif fusing.asking or fusing.units:
            plain = replace(systems, fusing=replace(fusing, asking=PLAIN, units=False))
            usual = measure_found(plain.find(task, RESULTS), task, untimed, plain.fusing)[0]
            result = compare(result, usual, "queries and documents as they are")
        if shard.is_first:
            if place is not None:
                _write(result, found.stage, task, place)
            if fusing.save_runs is not None:
                save_parts(found, alone, task, fusing.save_runs)
        results.append(result)
    return results


def open_retrieval(wish: Wish, flag: str) -> list[Retrieval]:
    """Open the data; ``flag`` is refused for other kinds of tasks, and for a single query.

    Raises:
        UserError: If it cannot be used so.
    """
    if not wish.data:
        raise UserError("--data", "is missing", cure="Name a file or folder")
    if wish.pruning is not None:
        raise UserError("--keep", "is for one model that searches", cure="Leave it out")
    tasks = open_tasks(wish)
    check_retrieval(tasks, flag, "is for results of retrieval", "")
    check_index(tasks, wish)
    for task in tasks:
        refuse_single(task.data.num_queries, f"{flag}: {task.data.name}")
    return [task for task in tasks if isinstance(task, Retrieval)]


def measure_found(
    found: Found, task: Retrieval, wish: Wish, fusing: Fusing
) -> tuple[EvaluationResult, list[EvaluationResult]]:
    """Measure a fusion, and each of its systems alone."""
    labels = labels_of(task, wish)
    result = summarise(
        score_found(task, found.stage.found),
        task.data,
        model=found.stage.model,
        efficiency=found.stage.cost,
        clusters=labels,
    )
    alone = [
        summarise(
            score_found(task, one.found),
            task.data,
            model=one.model,
            efficiency=one.cost,
            clusters=labels,
        )
        for one in found.parts
    ]
    if len(found.parts) == 1:
        return result.model_copy(update={"train_overlap": train_overlap(task)}), alone
    compared = [compare(result, one, "alone") for one in alone]
    recalls = [score_found(task, one.found, (FOUND,))[FOUND] for one in found.parts]
    parts, together = describe_parts(
        result, alone, compared, recalls, [one.cost for one in found.parts]
    )
    fusion = FusedSystems(
        rule=fusing.rule,
        weights=None if found.weights is None else list(found.weights),
        depth=fusing.depth,
        parts=parts,
        together=together,
        seconds_per_query=found.seconds if wish.efficiency else None,
        tuning=_describe_tuning(found, result, task, fusing),
    )
    facts = {"fusion": fusion, "train_overlap": train_overlap(task)}
    return result.model_copy(update=facts), alone


def _describe_tuning(
    found: Found, result: EvaluationResult, task: Retrieval, fusing: Fusing
) -> Tuning | None:
    if found.equal is None:
        return None
    equal = summarise(score_found(task, found.equal), task.data, clusters=result.clusters)
    comparison = compare(result, equal, "equal weights").comparison
    assert comparison is not None
    weights = found.tuned.weights if found.tuned is not None else found.weights
    assert weights is not None
    return Tuning(
        queries=fusing.tune_on or "folds",
        folds=[list(one) for one in found.tuned.folds] if found.tuned is not None else [],
        weights=list(weights),
        equal={name: one.value for name, one in equal.metrics.items()},
        difference=comparison.metrics[METRICS[0]],
    )


def score_found(task: Retrieval, found: SearchResult, metrics: Sequence[str] = METRICS) -> PerQuery:
    """Compute metrics of what was found for each query of a task."""
    data = task.task
    ids = data.query_ids, data.document_ids
    return score_ranking(rank_arrays(data.qrels, *ids, found.indices, found.scores), metrics)


def _write(result: EvaluationResult, stage: FirstStage, task: Retrieval, place: Path) -> None:
    run = as_run(task.task.query_ids, task.task.document_ids, stage.found)
    with written_beside(run, place.with_suffix(".trec"), stage.model.weights[:12]):
        write_result(result, place)


def save_parts(
    found: Found, alone: Sequence[EvaluationResult], task: Retrieval, folder: Path
) -> None:
    """Write the ranking and the result of each system."""
    for number, (part, result) in enumerate(zip(found.parts, alone, strict=True), 1):
        name = re.sub(r"[^\w.-]+", "-", model_name(part.model.name))[:60]
        place = folder / f"{task.data.name}.{task.data.split}.{number}-{name}.json"
        _write(result, part, task, place)
