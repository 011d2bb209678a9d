"""What a run exports beside its best weights: its start, or a point between both (``trainer.blend``)."""

from dataclasses import replace

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.text_model import TextModel
from embedtrain.progress import console
from embedtrain.recipe.retrieval import Recipe
from embedtrain.recipe.run_files import START_IS_BEST
from embedtrain.recipe.run_folder import RunFolder, exports_start, load_checkpoint
from embedtrain.training.validation import METRIC
from embedtrain.workflows.prepare import cache_of
from embedtrain.workflows.select.line import Point, best_of, fill, mixed, walk
from embedtrain.workflows.select.measured import Judge
from embedtrain.workflows.summary import note


def settle(run: RunFolder, recipe: Recipe, trained: TextModel, task: RetrievalTask | None) -> None:
    """Say so where validation found nothing better than the start; else blend as the recipe asks for."""
    if exports_start(run):
        console.print(START_IS_BEST)
        note(run, exports_start=True)
    elif recipe.trainer.blend is not None:
        assert isinstance(trained, TextEncoder)
        note(run, blend=blend(run, recipe, trained, task))


def blend(
    run: RunFolder, recipe: Recipe, trained: TextEncoder, task: RetrievalTask | None
) -> float:
    """Move a trained model towards its start as the recipe asks for, and return how far from it it is left, 0 to 1."""
    start = load_checkpoint(run, recipe, None).state_dict()
    weights = {name: value.clone() for name, value in trained.state_dict().items()}
    asked = recipe.trainer.blend
    assert asked is not None
    if asked != "auto":
        fill(trained, mixed(start, weights, asked))
        return asked
    assert task is not None
    assert recipe.validation is not None
    judge = Judge(task, (), cache_of(recipe.data), recipe.validation.precision)

    def measure(alpha: float) -> Point:
        scores = judge.decides(fill(trained, mixed(start, weights, alpha)))
        return replace(Point("", scores), alpha=alpha)

    points = walk(measure)
    alpha = best_of(
        points
    ).alpha  # nothing is guarded, for which nearer to the start would be safer
    assert alpha is not None
    fill(trained, mixed(start, weights, alpha))
    found = ", ".join(f"{point.mean:.4f} at {point.alpha:g}" for point in points)
    console.print(
        f"trainer.blend: auto takes {alpha:g} of the way from the start to the trained weights ({METRIC} {found})"
    )
    return alpha
