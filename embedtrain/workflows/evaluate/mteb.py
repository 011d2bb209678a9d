"""Workflow: a model runs tasks of mteb; results stay in mteb's own JSON and, per query, in ours."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from embedtrain.contract.long_inputs import LongInputs
from embedtrain.encoding.shards import current_shard
from embedtrain.errors import UserError, missing_extra
from embedtrain.evaluation.results.result import EvaluatedModel, write_result
from embedtrain.evaluation.tasks.discovery import open_task
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.files import default_cache, read_json, write_json
from embedtrain.locks import owns
from embedtrain.models.build import load_encoder
from embedtrain.models.dense.pair_head import refuse_interaction
from embedtrain.models.edits.lengthen import lengthen_encoder
from embedtrain.precision import Precision
from embedtrain.progress import console

LOCAL = "local"
"""In place of a name of mteb's: only the data that the user names."""


@dataclass(frozen=True)
class MtebWish:
    """What the user wants mteb to run."""

    names: Sequence[str]
    """Benchmarks, such as ``MTEB(eng, v2)``, names of tasks, or ``local``."""
    data: Sequence[str] = ()
    """Files and folders of tasks of one's own; ``TASK=PATH`` or ``TASK:SUBSET=PATH`` replaces Hub data."""
    split: str | None = None
    task: str | None = None
    """Kind of the data, where it could be of several."""
    prompts: Path | None = None
    """A JSON file of prompts that replace the contract's, by mteb's names."""
    instruction: str | None = None
    """Name of one of the model's, whose prompts are the usual ones then; ``prompts`` still go before them."""
    long_inputs: LongInputs | None = None
    """How documents may be longer than the model was trained on."""
    precision: Precision = "auto"
    """What the network computes in."""


@dataclass(frozen=True)
class MtebScore:
    """The main score of one subset and split of a task."""

    task: str
    subset: str
    split: str
    metric: str
    value: float


@owns("output")
def evaluate_mteb(model: str, wish: MtebWish, output: Path) -> list[MtebScore]:
    """Run tasks of mteb and return their main scores.

    ``output`` gets ``results/`` and ``predictions/`` as mteb writes them, for each model, by its weights; our
    own results with intervals, recomputed from the predictions, in ``scores/``; and ``mteb.json``. What is
    there is not run again.

    Raises:
        UserError: If mteb is not installed, a name is unknown, data does not load, or a late-interaction
            model is asked for a task that needs one vector per text.
    """
    if current_shard().ranks > 1:
        raise UserError("--mteb", "runs in one process", cure="Start it without torchrun")
    if find_spec("mteb") is None:
        raise missing_extra("mteb", "mteb", "to run its tasks")
    from embedtrain.evaluation.mteb.model import as_mteb_model

    prompts = _read_prompts(wish.prompts)
    tasks = find_tasks(wish)
    encoder = load_encoder(model, instruction=wish.instruction)
    # mteb multiplies the vectors of most kinds of tasks itself
    refuse_interaction(encoder, "--mteb")
    encoder = lengthen_encoder(encoder, wish.long_inputs)
    subject = Subject(
        encoder, model, default_cache(), instruction=wish.instruction, precision=wish.precision
    )
    adapter = as_mteb_model(subject, prompts)
    _check_kinds(tasks, subject)
    scores: list[MtebScore] = []
    for task in tasks:
        found = _run(adapter, task, output)
        scores += found
        for score in found:
            console.print(f"{score.task} {score.subset} {score.split}: {score.value:.4f}")
    summary = {
        "model": {"name": subject.name, "weights": subject.key},
        "prompts": adapter.used_prompts,
        "scores": [vars(score) for score in scores],
    }
    write_json(output / "mteb.json", summary)
    return scores


def find_tasks(wish: MtebWish) -> list[Any]:
    """Return the tasks of mteb that the user names, their data replaced where he says so."""
    from embedtrain.evaluation.mteb.local_tasks import local_task, replace_data

    tasks = {task.metadata.name: task for name in wish.names for task in _named(name)}
    for entry in wish.data:
        place, _, path = entry.rpartition("=")
        if not place:
            opened = open_task(path, wish.split, wish.task)
            tasks[opened.data.name] = local_task(opened)
            continue
        name, _, subset = place.partition(":")
        if name not in tasks:
            raise UserError(
                "--data",
                "replaces the data of a task that is not run",
                got=name,
                cure="Name it in --mteb",
            )
        replace_data(tasks[name], open_task(path, wish.split, wish.task), subset or None)
    if not tasks:
        raise UserError("--mteb local", "has no data to run on", cure="Add --data")
    return list(tasks.values())


def _named(name: str) -> Iterable[Any]:
    """Return the tasks of a benchmark, or the one task of that name."""
    import mteb

    if name == LOCAL:
        return []
    try:
        return list(mteb.get_benchmark(name).tasks)
    except KeyError:
        pass
    try:
        return [mteb.get_task(name)]
    except KeyError as error:
        reason = str(error.args[0]).splitlines()[0]
        raise UserError(
            "--mteb", f"names no benchmark and no task ({reason})", got=name, cure="Check the name"
        ) from error


def _check_kinds(tasks: Sequence[Any], subject: Subject) -> None:
    if subject.is_dense:
        return
    odd = [task.metadata.name for task in tasks if not task._support_search]  # noqa: SLF001 - no getter
    if odd:
        raise UserError(
            subject.name,
            "has several vectors per text, and mteb compares those in retrieval and reranking only",
            got=odd,
            cure="Leave these tasks out, or run them without --mteb where embedtrain offers them",
        )


def _run(adapter: Any, task: Any, output: Path) -> list[MtebScore]:  # noqa: ANN401
    """Run one task, or find its results, and write ours beside mteb's."""
    import mteb

    meta = adapter.mteb_model_meta
    cache = mteb.ResultCache(output)
    place = cache.get_task_result_path(task.metadata.name, meta)
    predictions = output / "predictions" / place.parent.relative_to(output / "results")
    name, main = task.metadata.name, task.metadata.main_score
    loaded_here = task.data_loaded
    try:
        result = mteb.evaluate(
            adapter,
            task,
            co2_tracker=False,
            cache=cache,
            encode_kwargs={"batch_size": 256},
            overwrite_strategy="only-missing" if _is_current(place, task) else "always",
            prediction_folder=predictions,
            show_progress_bar=False,
        )
    except (OSError, ValueError, RuntimeError) as error:
        if loaded_here or task.data_loaded:
            raise
        raise UserError(
            f"--mteb {name}:",
            "its data cannot be loaded",
            got=str(error).splitlines()[0],
            cure=f"Give the data as files with --data {name}=PATH",
        ) from error
    scores = result.task_results[0].scores
    identity = adapter.subject.identity()
    settings = identity.settings | {"revision": meta.revision}
    identity = identity.model_copy(update={"settings": settings})
    _write_ours(task, predictions, scores, output / "scores" / str(meta.revision), identity)
    return [
        MtebScore(name, one["hf_subset"], split, main, float(one["main_score"]))
        for split, subsets in scores.items()
        for one in subsets
    ]


def _is_current(place: Path, task: Any) -> bool:  # noqa: ANN401 - a task of mteb
    """Whether a result was measured on this very data: mteb itself keeps results of changed data."""
    if not place.is_file():
        return True
    found = read_json(place)
    return bool(found["dataset_revision"] == task.metadata.dataset["revision"])


def _write_ours(
    task: Any,  # noqa: ANN401
    predictions: Path,
    scores: dict[str, list[dict[str, Any]]],
    folder: Path,
    model: EvaluatedModel,
) -> None:
    """Recompute what is not written yet from the predictions."""
    from embedtrain.evaluation.mteb.recompute import recompute

    saved = predictions / task.prediction_file_name
    if not saved.is_file():
        return
    found = read_json(saved)
    for split, subsets in scores.items():
        for one in subsets:
            subset = one["hf_subset"]
            name = task.metadata.name if subset == "default" else f"{task.metadata.name}.{subset}"
            place = folder / f"{name}.{split}.json"
            if split not in found.get(subset, {}):
                continue
            if not task.data_loaded:
                if place.is_file():
                    continue
                task.load_data()
            result = recompute(task, found, one, subset, split, model)
            if result is not None:
                write_result(result, place)


def _read_prompts(path: Path | None) -> dict[str, str]:
    """Read prompts by mteb's names."""
    if path is None:
        return {}
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(one, str) for one in content.values()):
        raise UserError(
            path, "is not an object of texts", got=content, cure='Write {"SciFact-query": "..."}'
        )
    return content
