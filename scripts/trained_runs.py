"""Runs of a comparison that are trained once, whatever breaks off between them."""

from pathlib import Path

from embedtrain.errors import UserError
from embedtrain.recipe.retrieval import Recipe
from embedtrain.recipe.run_folder import RunFolder, open_run
from embedtrain.workflows.train import resume, train


def train_once(recipe: Recipe, run: Path) -> Path:
    """Train unless that was done before, going on where it broke off; return the folder of the model.

    Raises:
        UserError: If what broke off was trained with other settings.
    """
    if (run / "model").is_dir():
        return run / "model"
    if not RunFolder(run).is_run:
        train(recipe, run)
        return run / "model"
    begun = open_run(run)[1]
    asked = recipe.trainer
    if asked.precision == "auto":  # the run holds what that was
        asked = asked.model_copy(update={"precision": begun.trainer.precision})
    if (begun.objective, begun.trainer) != (recipe.objective, asked):
        raise UserError(
            run, "was begun with other settings", cure="Remove it or choose another --output"
        )
    resume(run)
    return run / "model"
