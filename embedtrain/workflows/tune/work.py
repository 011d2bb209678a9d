"""A search under way: what a trial is, and whether the budget reaches for it."""

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.models.build import load_encoder
from embedtrain.recipe.retrieval import Recipe, load_recipe
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.training.measuring import watched
from embedtrain.workflows.prepare import cache_of
from embedtrain.workflows.select.measured import Judge
from embedtrain.workflows.train import train
from embedtrain.workflows.tune.study import FRACTIONS, Settings, TooLongError

SLACK = 1.2
"""How much longer than expected a trial may take and still be begun."""


@dataclass
class Work:
    """A search under way."""

    recipe: Recipe
    rows: int
    output: Path
    deadline: float
    per_row: float
    """Seconds a row and pass take, as expected at first and as measured at worst."""
    task: RetrievalTask
    clock: Callable[[], float]
    scores: dict[str, list[float]] = field(default_factory=dict)
    """Of each folder of a trial, the score of each query."""

    @property
    def judge(self) -> Judge:
        """What scores a trial's exported model."""
        assert self.recipe.validation is not None
        cache, precision = cache_of(self.recipe.data), self.recipe.validation.precision
        return Judge(self.task, (), cache, precision)

    def recipe_of(self, settings: Settings, seed: int | None = None) -> Recipe:
        """Return the recipe of a trial: validated at quarters of its steps, measured on nothing else."""
        changes: dict[str, Any] = {"tune": None, "evaluation": None, **settings}
        if "trainer.epochs" in settings:
            changes["trainer.steps"] = None
        if "trainer.steps" in settings:
            changes["trainer.epochs"] = None
        if seed is not None:
            changes["trainer.seed"] = seed
        found = load_recipe(self.recipe, changes)
        assert isinstance(found, Recipe)
        steps = found.trainer.num_steps(self.rows)
        every = {"validation.every_steps": math.ceil(steps / (len(FRACTIONS) + 1))}
        again = load_recipe(found, every)
        assert isinstance(again, Recipe)
        return again

    def passes(self, recipe: Recipe) -> int:
        """Return how many rows a trial trains on, counting each pass."""
        return recipe.trainer.num_steps(self.rows) * recipe.trainer.batch_size

    def known(self, name: str) -> list[float] | None:
        """Return the score of each query of a trial whose model is there, be it from before a stop."""
        run = RunFolder(self.output / name)
        if name not in self.scores and run.model.is_dir():
            self.scores[name] = self.judge.decides(load_encoder(str(run.model)))
        return self.scores.get(name)

    def do(self, name: str, recipe: Recipe, report: Callable[[float, float], None]) -> float:
        """Train a trial, and return the mean score of what it exports.

        Raises:
            TooLongError: If the budget does not reach for it.
        """
        rows = self.passes(recipe)
        if self.clock() + SLACK * rows * self.per_row > self.deadline:
            raise TooLongError("budget", "does not reach for this trial", cure="Give more")
        folder, began = self.output / name, self.clock()
        if folder.exists():
            shutil.rmtree(folder)
        try:
            with watched(report):
                run = train(recipe, folder)
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        each = self.judge.decides(load_encoder(str(run.model)))
        self.scores[name] = each
        self.per_row = max(self.per_row, (self.clock() - began) / rows)
        return sum(each) / len(each)
