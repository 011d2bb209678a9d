"""Workflow: several models become one, at one point or at the best of a grid of them."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from embedtrain.contract.stored import StoredOutputs
from embedtrain.errors import UserError
from embedtrain.evaluation.results.result import EvaluationResult
from embedtrain.evaluation.tasks.discovery import open_task
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.files import default_cache, write_json
from embedtrain.locks import owns
from embedtrain.models.build import load_encoder, save_encoder
from embedtrain.models.edits.concatenate import concatenate
from embedtrain.models.edits.merge import Granularity, Method, Weights, merge_weights
from embedtrain.models.encoder import TextEncoder
from embedtrain.progress import console
from embedtrain.release.cards.changes import change_card
from embedtrain.release.export import card_of, write_model
from embedtrain.workflows.evaluate.tasks import Wish, evaluate_task
from embedtrain.workflows.stored import stored_outputs

MAIN_METRICS = ("ndcg_at_10", "spearman")
"""What a point of the grid is judged by, the first that a task reports; else the task's first metric."""

MAY_DIFFER = {
    *("query_prompt", "document_prompt", "query_length", "document_length", "instructions"),
    "outputs",
}
"""Parts of a contract that say what a model is told or stored as, not what its weights mean: the first model's are kept,
of the last one only what all say."""


@dataclass(frozen=True)
class MergeWish:
    """What to merge, and how.

    Attributes:
        models: Folders or Hub ids.
        method: See :func:`embedtrain.models.edits.merge.merge_weights`, and for ``concatenate``
            :func:`embedtrain.models.edits.concatenate.concatenate`.
        shares: One per model; empty shares alike (for task vectors: 1 each).
        base: What all were trained from.
        granularity: Of ``delta``.
        grid: Points to try instead of ``shares``; 0 tries none.
        data: Tasks that points are scored on, of any kind that `embedtrain evaluate` knows.
        split: Of the data; choosing on the split that is reported would flatter the result.
    """

    models: Sequence[str]
    method: Method = "linear"
    shares: Sequence[float] = ()
    base: str | None = None
    granularity: Granularity = "tensor"
    grid: int = 0
    data: Sequence[str] = ()
    split: str | None = None


@dataclass(frozen=True)
class Point:
    """One way to merge, with its score on each task where it was measured."""

    shares: tuple[float, ...]
    granularity: Granularity
    scores: dict[str, float]

    @property
    def mean(self) -> float:
        """Mean over tasks."""
        return fmean(self.scores.values()) if self.scores else 0.0


@owns("output")
def merge(wish: MergeWish, output: Path) -> list[Point]:
    """Merge and write the model; with a grid measure every point and write the best by the mean over tasks.

    Returns:
        The points in the order they were tried; beside the model they are in ``merge.json``.

    Raises:
        UserError: If the models do not belong together, or the wish contradicts itself.
    """
    if output.exists():
        raise UserError("--output", "exists", got=str(output), cure="Choose another folder")
    if len(wish.models) < (2 if wish.method in ("linear", "slerp") else 1):
        raise UserError("MODELS", f"{wish.method} needs two or more", got=list(wish.models))
    if bool(wish.grid) != bool(wish.data):
        raise UserError("--grid and --data", "need each other", cure="Give both or neither")
    if wish.grid and wish.shares:
        raise UserError("--weight", "takes the place of --grid", cure="Give one of them")
    if wish.method == "concatenate":
        return [_side_by_side(wish, output)]
    tasks = [open_task(path, wish.split, None) for path in wish.data]
    encoders = [load_encoder(path) for path in wish.models]
    refuse_strangers(wish.models, encoders)
    start = None if wish.base is None else load_encoder(wish.base)
    base = None if start is None else start.state_dict()
    weights = [encoder.state_dict() for encoder in encoders]
    merged = copy.deepcopy(encoders[0])
    parts = [*encoders, *([] if start is None else [start])]
    keep_shared_formats(merged, map(stored_outputs, parts))
    points = []
    for shares, granularity in _points(wish):
        _fill(merged, merge_weights(weights, shares, wish.method, base, granularity))
        subject = Subject(merged, f"{wish.method} {shares}", default_cache())
        results = [evaluate_task(subject, task, Wish([], efficiency=False))[0] for task in tasks]
        scores = {result.data.name: main_score(result) for result in results}
        points.append(Point(shares, granularity, scores))
        if scores:
            found = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
            console.print(f"{shares} {granularity}: {found}")
    best = max(points, key=lambda point: point.mean)
    _fill(merged, merge_weights(weights, best.shares, wish.method, base, best.granularity))
    _write(merged, wish, best, points, output)
    return points


def _side_by_side(wish: MergeWish, output: Path) -> Point:
    """Write two models as one whose vectors are both of theirs."""
    if wish.grid or wish.base is not None:
        raise UserError("--method", "concatenate takes neither --grid nor --base", cure="Drop them")
    point = Point(tuple(wish.shares) or (1.0, 1.0), wish.granularity, {})
    _write(concatenate(wish.models, point.shares), wish, point, [point], output)
    return point


def _write(
    model: TextEncoder, wish: MergeWish, best: Point, points: Sequence[Point], output: Path
) -> None:
    report = {
        "method": wish.method,
        "models": list(wish.models),
        "base": wish.base,
        "chosen": {"shares": best.shares, "granularity": best.granularity},
        "points": [
            {"shares": p.shares, "granularity": p.granularity, "scores": p.scores} for p in points
        ],
    }

    def save(folder: Path) -> None:
        save_encoder(model, folder)
        write_json(folder / "merge.json", report)

    card = card_of(Path(wish.models[0]))
    changes = [f"is {len(wish.models)} models merged by `embedtrain merge --method {wish.method}`"]
    write_model(model, output, save=save, card=card and change_card(card, changes))


def main_score(result: EvaluationResult) -> float:
    """Return the metric that a result is judged by."""
    metrics = result.metrics
    name = next((name for name in MAIN_METRICS if name in metrics), next(iter(metrics)))
    return metrics[name].value


def _points(wish: MergeWish) -> list[tuple[tuple[float, ...], Granularity]]:
    """Return the shares and granularities to try."""
    count = len(wish.models)
    if not wish.grid:
        return [(tuple(wish.shares) or (1.0,) * count, wish.granularity)]
    if wish.method == "task_vectors":  # the same scale for all
        return [((i / wish.grid,) * count, wish.granularity) for i in range(wish.grid + 1)]
    if count != 2:
        raise UserError(
            "--grid", f"of {wish.method} goes between two models", got=count, cure="Give --weight"
        )
    shares = [(1 - i / wish.grid, i / wish.grid) for i in range(wish.grid + 1)]
    kinds: tuple[Granularity, ...] = (wish.granularity,)
    if wish.method == "delta":
        kinds = ("tensor", "row", "element")
    return [(share, kind) for kind in kinds for share in shares]


def refuse_strangers(paths: Sequence[str], encoders: Sequence[TextEncoder]) -> None:
    """Refuse models whose weights mean different things; of other prompts and lengths say that the first's stay.

    Raises:
        UserError: If pooling, similarity, another part of the contract or the vocabulary differs.
    """
    first = encoders[0]
    for path, other in zip(paths[1:], encoders[1:], strict=True):
        if _kept(other) != _kept(first):
            raise UserError(
                path, f"has another contract than {paths[0]}", cure="Train both with the same one"
            )
        if other.tokenizer.get_vocab() != first.tokenizer.get_vocab():
            raise UserError(path, f"has another vocabulary than {paths[0]}")
        if _told(other) != _told(first):
            console.print(
                f"{path} has other prompts or lengths: the merged model has those of {paths[0]}"
            )


def _kept(model: TextEncoder) -> dict[str, object]:
    """Return what all must share of their contracts, beside the class of the model."""
    return {"kind": type(model), **model.contract.model_dump(exclude=MAY_DIFFER)}


def _told(model: TextEncoder) -> dict[str, object]:
    """Return what texts are told of: all but what vectors are stored as."""
    return model.contract.model_dump(exclude={"outputs"})


def keep_shared_formats(merged: TextEncoder, parts: Iterable[StoredOutputs | None]) -> None:
    """Let a mixture say what its vectors are made to be stored as only where all that is mixed says so.

    Weights that half of them never learned for bits do not make bits worth searching.
    """
    known = stored_outputs(merged)
    if known is not None and any(part != known for part in parts):
        merged.contract = merged.contract.model_copy(update={"outputs": None})
        console.print(
            f"Not all that is mixed was made to be stored as {known.sentence()}: the mixture does not say that it is"
        )


def _fill(model: TextEncoder, weights: Weights) -> None:
    model.load_state_dict(dict(weights))
