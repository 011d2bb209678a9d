"""Workflow: of a run's weights, their mean and the way back to the start, choose what to ship by validation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.statistics import compare_paired
from embedtrain.evaluation.results.plots import COLORS, MUTED, new_figure, save_figure
from embedtrain.evaluation.tasks.discovery import open_task
from embedtrain.files import default_cache, write_json
from embedtrain.locks import owns
from embedtrain.models.build import load_encoder, save_encoder
from embedtrain.models.edits.merge import Weights, merge_weights
from embedtrain.models.encoder import TextEncoder
from embedtrain.precision import Precision
from embedtrain.progress import console
from embedtrain.recipe.retrieval import Recipe, refuse_pretraining
from embedtrain.recipe.run_folder import RunFolder, load_checkpoint, open_run
from embedtrain.release.cards.changes import change_card
from embedtrain.release.export import card_of, write_model
from embedtrain.training.callbacks import list_checkpoints
from embedtrain.training.measuring import BEST, list_weights
from embedtrain.training.validation import METRIC
from embedtrain.workflows.merge import keep_shared_formats, refuse_strangers
from embedtrain.workflows.prepare import load_task, open_data
from embedtrain.workflows.select.line import Point, best_of, fill, first_good, mixed, walk
from embedtrain.workflows.select.measured import Judge
from embedtrain.workflows.stored import stored_outputs

BASE = "base, as it comes"
LAST = "last"
"""Ends the name of weights of a run's last step."""
Toward = Literal["start", "end"]


@dataclass(frozen=True)
class SelectWish:
    """What to choose from, and by what.

    Attributes:
        runs: Folders of finished runs from one start.
        base: What they started from; None takes the first run's backbone.
        data: Queries that decide, as ``validation.path``; None takes the first run's own validation.
        split: Of the data.
        guard: Tasks of any kind that must not lose more than a point against the base.
        guard_split: Of these.
        errors: Standard errors below the best within which weights nearer to one end are taken; 0 takes the best.
        toward: Which end: the start, where less is forgotten, or the end of training, where few queries choose.
        precision: What texts are encoded in; None takes the first run's.
    """

    runs: Sequence[Path]
    base: str | None = None
    data: str | None = None
    split: str = "dev"
    guard: Sequence[str] = ()
    guard_split: str | None = None
    errors: float = 1.0
    toward: Toward = "start"
    precision: Precision | None = None


@dataclass(frozen=True)
class Selected:
    """What was measured, in order, and which of it was written."""

    points: list[Point]
    chosen: Point


@owns("output")
def select(wish: SelectWish, output: Path) -> Selected:
    """Measure the base, each run's best and last weights, means, and the line back to the base; write one model.

    All but the base under the first run's contract. ``select.json`` beside the model holds every point, ``select.svg``
    the line.

    Raises:
        UserError: If runs, base or data do not go together, or a run is not finished.
    """
    if output.exists():
        raise UserError("--output", "exists", got=str(output), cure="Choose another folder")
    if not 0 <= wish.errors <= 10:
        raise UserError("--errors", "must be between 0 and 10", got=wish.errors)
    opened = [_open(path) for path in wish.runs]
    first, recipe = opened[0]
    judge = _judge(wish, recipe)
    base_path = wish.base or recipe.model.backbone
    base = load_encoder(base_path)
    start = load_checkpoint(first, recipe, None) if wish.base is None else base
    model = load_encoder(str(first.model))
    known = base.state_dict()
    origin = {name: value for name, value in start.state_dict().items() if name in known}
    before = _measured(judge, base, Point(BASE, ()), {})
    compared = judge.guarded(base)

    def measure(name: str, weights: Weights, alpha: float | None = None) -> Point:
        return _measured(judge, fill(model, weights), Point(name, (), alpha), compared)

    encoders = [model, *(load_encoder(str(run.model)) for run, _ in opened[1:])]
    formats = [stored_outputs(one) for one in encoders]
    trained = dict(_candidates(opened, encoders))
    del encoders
    ends = [measure(name, weights) for name, weights in trained.items()]
    is_early = wish.toward == "start"
    end = best_of(ends) if is_early else first_good(_later_first(ends), wish.errors)
    line = walk(
        lambda alpha: measure(
            f"{alpha:g} of {end.name}", mixed(origin, trained[end.name], alpha), alpha
        )
    )
    chosen = first_good(line if is_early else line[::-1], wish.errors)
    if before.mean > (chosen if is_early else best_of(line)).mean or not chosen.is_safe:
        chosen = before
    shipped = base
    if chosen is not before:
        shipped = fill(model, mixed(origin, trained[end.name], _at(chosen)))
        keep_shared_formats(
            shipped, formats if _at(chosen) == 1 else [*formats, stored_outputs(base)]
        )
    found = Selected([before, *ends, *line], chosen)
    _write(shipped, found, wish, base_path, output, card_of(first.model))
    return found


def _open(path: Path) -> tuple[RunFolder, Recipe]:
    run, found = open_run(path)
    recipe = refuse_pretraining(found, path)
    if not run.model.is_dir():
        cure = f"Finish it first: embedtrain train --resume {path}"
        raise UserError(path, "has exported no model yet", cure=cure)
    if recipe.model.kind == "cross_encoder":
        raise UserError(path, "is a cross-encoder's", cure="Select among encoders")
    return run, recipe


def _judge(wish: SelectWish, recipe: Recipe) -> Judge:
    """Open the data before any model is loaded."""
    task: RetrievalTask | None
    asked = recipe.validation
    if wish.data is not None:
        task = load_task(wish.data, wish.split)
    else:
        task = open_data(recipe).validation
    if task is None:
        cure = "Name queries that no run trained on: --data FOLDER --split dev"
        raise UserError("--data", "is missing, and the run validated on nothing", cure=cure)
    guards = [open_task(path, wish.guard_split, None) for path in wish.guard]
    if any(guard.data.fingerprint == task.fingerprint for guard in guards):
        raise UserError("--guard", "names the data that decide", cure="Name data of another kind")
    precision = wish.precision or (asked.precision if asked is not None else "auto")
    return Judge(task, guards, default_cache(), precision)


def _candidates(
    opened: Sequence[tuple[RunFolder, Recipe]], encoders: Sequence[TextEncoder]
) -> Iterator[tuple[str, Weights]]:
    """Yield each run's best and last weights, the mean of those it kept, and the mean of the runs."""
    refuse_strangers([str(run.model) for run, _ in opened], encoders)
    best = [{k: v.clone() for k, v in one.state_dict().items()} for one in encoders]
    for (run, recipe), weights in zip(opened, best, strict=True):
        name = f"{run.path.name}: " if len(opened) > 1 else ""
        yield f"{name}best", weights
        if (run.checkpoints / BEST).is_file() and (saved := list_checkpoints(run.checkpoints)):
            yield f"{name}{LAST}", _weights(run, recipe, saved[-1], weights)
        if len(kept := list_weights(run.checkpoints)) > 1:
            parts = [_weights(run, recipe, path, weights) for path in kept]
            yield f"{name}mean of {len(kept)} kept", _mean(parts)
    if len(best) > 1:
        yield f"mean of {len(best)} runs", _mean(best)


def _later_first(ends: Sequence[Point]) -> list[Point]:
    """Return the ends of all runs before weights of earlier steps, of each the best first."""
    return sorted(ends, key=lambda point: (not point.name.endswith(LAST), -point.mean))


def _weights(run: RunFolder, recipe: Recipe, path: Path, best: Weights) -> Weights:
    """Return a checkpoint's weights by the names of the exported model."""
    found = load_checkpoint(run, recipe, path).state_dict()
    return {name: found.get(name, weight) for name, weight in best.items()}


def _mean(parts: Sequence[Weights]) -> Weights:
    return merge_weights(parts, [1.0] * len(parts), "linear")


def _measured(judge: Judge, model: TextEncoder, point: Point, base: dict[str, float]) -> Point:
    """Score a point; guarded data sets are compared with the base's scores, which has none to lose."""
    scores = judge.decides(model)
    guards = {}
    if base:
        guards = {name: value - base[name] for name, value in judge.guarded(model).items()}
    found = replace(point, scores=scores, guards=guards)
    beside = "".join(f", {name} {value:+.4f}" for name, value in guards.items())
    console.print(f"{found.name}: {METRIC} {found.mean:.4f}{beside}")
    return found


def _at(point: Point) -> float:
    assert point.alpha is not None
    return point.alpha


def _write(
    model: TextEncoder, found: Selected, wish: SelectWish, base: str, output: Path, card: str | None
) -> None:
    """Write the model, and beside it how it was chosen."""
    report = describe(found, wish, base)
    console.print(str(report["sentence"]))
    changes = [f"is {found.chosen.name} of what `embedtrain select` measured"]

    def save(folder: Path) -> None:
        save_encoder(model, folder)
        write_json(folder / "select.json", report)
        if find_spec("matplotlib") is not None:
            draw(found, folder / "select.svg")

    write_model(model, output, save=save, card=card and change_card(card, changes))


def describe(found: Selected, wish: SelectWish, base: str) -> dict[str, object]:
    """Return the content of ``select.json``."""
    before, chosen = found.points[0], found.chosen
    gain = compare_paired(np.array(chosen.scores), np.array(before.scores))
    interval = {"difference": gain.difference, "low": gain.low, "high": gain.high}
    if chosen is before:
        sentence = f"Nothing is better than {base} on these queries: it is written as it came."
    else:
        sentence = (
            f"Chosen: {chosen.name}, {METRIC} {chosen.mean:.4f}, {gain.difference:+.4f} over the base "
            f"[{gain.low:+.4f}, {gain.high:+.4f}] on the {len(chosen.scores)} queries that chose it"
        )
    return {
        "runs": [str(path) for path in wish.runs],
        "base": base,
        "data": wish.data,
        "split": None if wish.data is None else wish.split,
        "metric": METRIC,
        "errors": wish.errors,
        "toward": wish.toward,
        "chosen": {"name": chosen.name, "alpha": chosen.alpha, "gain": interval},
        "sentence": sentence,
        "points": [
            {"name": p.name, "alpha": p.alpha, METRIC: p.mean, "guards": p.guards}
            for p in found.points
        ],
    }


def draw(found: Selected, path: Path) -> None:
    """Draw the line from start to trained weights: the gain over the base, and what guarded sets gain or lose."""
    before = found.points[0]
    line = [point for point in found.points if point.alpha is not None]
    across = [point.alpha for point in line]
    with new_figure(path, width=6.4, height=4.0) as (figure, axes):
        axes.plot(across, [point.mean - before.mean for point in line], "o-", label="validation")
        for name, color in zip(line[0].guards, COLORS[1:] * len(line[0].guards), strict=False):
            axes.plot(
                across, [point.guards[name] for point in line], "s--", color=color, label=name
            )
        if found.chosen.alpha is not None:
            axes.axvline(found.chosen.alpha, color=MUTED, linestyle=":", label="chosen")
        axes.axhline(0, color=MUTED, linewidth=1)
        axes.set_xlabel("from the start (0) to the trained weights (1)")
        axes.set_ylabel("difference from the base")
        figure.legend(loc="outside upper left", ncols=3, frameon=False)
        save_figure(figure, path)
