"""Runs of a comparison that are trained once, whatever breaks off between them."""

import shutil
from pathlib import Path

from embedtrain.checkpoint import RunFolder
from embedtrain.recipe import Recipe
from embedtrain.train import train


def train_once(recipe: Recipe, run: Path) -> Path:
    """Train unless that was done before, anew where it broke off; return the folder of the model."""
    if not (run / "model").is_dir():
        if RunFolder(run).is_run:  # nothing else is removed: train refuses a folder that is there
            shutil.rmtree(run)
        train(recipe, run)
    return run / "model"
