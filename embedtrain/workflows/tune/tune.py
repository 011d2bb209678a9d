"""Workflow: try settings of a recipe until the time is over, and write the best as a recipe of its own."""

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.errors import UserError
from embedtrain.files import refuse_existing, write_file
from embedtrain.locks import owns
from embedtrain.models.build import build_model, load_encoder
from embedtrain.models.encoder import TextEncoder
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.progress import console
from embedtrain.recipe.retrieval import Recipe, dump_recipe, load_recipe, load_retrieval_recipe
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.stopping import going_on
from embedtrain.training.automatic import ROWS_PER_BATCH
from embedtrain.training.measuring import watched
from embedtrain.training.search_space import SearchedKey, TuneConfig
from embedtrain.workflows.check import check
from embedtrain.workflows.prepare import cache_of, open_data
from embedtrain.workflows.select.measured import Judge
from embedtrain.workflows.train import train
from embedtrain.workflows.tune.report import Tuned, write_tuning
from embedtrain.workflows.tune.study import FRACTIONS, Settings, Study, Trial, best_trials, shown

ASKED, RESOLVED, BEST = "asked.yaml", "tune.yaml", "best.yaml"
RATE = "trainer.learning_rate"
KEPT = 3
"""Trials whose weights are kept, and that are done again with other seeds."""
SEEDS = 2
"""Further seeds of these."""
SEARCH_SHARE = 0.6
"""Of the budget; the rest is for the further seeds."""
SLACK = 1.2
"""How much longer than expected a trial may take and still be begun."""


class TooLongError(UserError):
    """The trial does not fit into what is left of the budget."""


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


@owns("output")
def tune(
    recipe: Recipe,
    output: Path,
    budget: float,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Tuned:
    """Search for ``budget`` seconds, the recipe as it is first; on a folder that was begun it goes on.

    Leaves ``best.yaml``, a recipe like any other, ``tune.json``, ``tune.svg`` and the folders of the best trials.

    Raises:
        UserError: If the recipe does not validate or does not run, the space is wrong, or optuna is missing.
    """
    began = clock()
    if recipe.validation is None:
        cure = "Add validation: {fraction: 0.1}"
        raise UserError("validation", "is missing, and trials are compared by it", cure=cure)
    if recipe.model.kind == "cross_encoder":
        raise UserError("model.kind", "is a cross-encoder, which tune does not search for")
    resolved, rows, per_row = _begin(recipe, output)
    assert resolved.tune is not None
    task = open_data(resolved).validation
    assert task is not None
    work = Work(resolved, rows, output, began + SEARCH_SHARE * budget, per_row, task, clock)
    study = Study(output, resolved.tune.space, resolved.tune.seed)
    with going_on(f"continue with the same command: what is in {output} stays"):
        study.begin(_first(resolved))
        _search(study, work)
        work.deadline = began + budget
        return _finish(study, work)


def _begin(recipe: Recipe, output: Path) -> tuple[Recipe, int, float]:
    """Resolve the recipe and its space once, keep both, and expect a time for a row and pass."""
    asked = dump_recipe(recipe)
    known = (output / ASKED).is_file()
    if known and (output / ASKED).read_text(encoding="utf-8") != asked:
        cure = "Choose another --output, or remove the folder"
        raise UserError(output, "holds the search of another recipe", cure=cure)
    if not known:
        refuse_existing(output)
    report = check(recipe)
    rows = sum(source.num_rows for _, source in report.sources if hasattr(source, "num_rows"))
    resolved = load_retrieval_recipe(output / RESOLVED) if known else report.recipe
    assert isinstance(resolved, Recipe)
    if not known:
        config = resolved.tune or TuneConfig(space=usual_space(resolved, rows))
        resolved = resolved.model_copy(update={"tune": config})
        _check_space(resolved)
        output.mkdir(parents=True, exist_ok=True)
        write_file(output / RESOLVED, dump_recipe(resolved, output / "given"))
        write_file(output / ASKED, asked)
    return resolved, rows, report.estimate.seconds_per_step / resolved.trainer.batch_size


def usual_space(recipe: Recipe, rows: int) -> tuple[SearchedKey, ...]:
    """Return what is searched where the recipe does not say."""
    rate = recipe.trainer.learning_rate
    space = [SearchedKey(key=RATE, low=rate / 10, high=rate * 5, log=True)]
    space.append(SearchedKey(key="trainer.epochs", choices=(1.0, 2.0, 4.0)))
    sizes = tuple(size for size in (16, 32, 64, 128) if size <= rows // ROWS_PER_BATCH)
    if len(sizes) > 1:
        space.append(SearchedKey(key="trainer.batch_size", choices=sizes))
    space.append(SearchedKey(key="trainer.warmup_ratio", choices=(0.05, 0.2)))
    if isinstance(recipe.objective, InfoNCE) and recipe.model.kind == "dense":
        low, high = recipe.objective.temperature / 4, recipe.objective.temperature * 2
        space.append(SearchedKey(key="objective.temperature", low=low, high=high, log=True))
        both = ["query_to_document", "document_to_query"]
        space.append(SearchedKey(key="objective.directions", choices=(both[:1], both)))
    return tuple(space)


def _check_space(recipe: Recipe) -> None:
    """Refuse a key that the recipe does not have, or a value that it cannot take, before the first trial."""
    assert recipe.tune is not None
    for key in recipe.tune.space:
        ends = key.choices or (key.low, key.high)
        other = {"trainer.epochs": "trainer.steps", "trainer.steps": "trainer.epochs"}.get(key.key)
        for value in ends:
            load_recipe(recipe, {key.key: value} | ({other: None} if other else {}))


def _first(recipe: Recipe) -> list[Settings]:
    """Return the settings of the first trials: the recipe as it is, then a third and three times its rate."""
    assert recipe.tune is not None
    first: list[Settings] = [{}]
    if any(key.key == RATE for key in recipe.tune.space):
        first += [{RATE: recipe.trainer.learning_rate * factor} for factor in (1 / 3, 3.0)]
    return first


def _search(study: Study, work: Work) -> None:
    """Do trials until none fits any more: three in a row did not, or not even the recipe as it is."""
    too_long = 0

    def evaluate(number: int, settings: Settings, report: Callable[[float, float], None]) -> float:
        return work.do(f"trial-{number:03d}", work.recipe_of(settings), report)

    while too_long < 3:
        try:
            trial = study.run_one(evaluate, work.clock)
        except TooLongError:
            return
        score = "" if trial.score is None else f" {trial.score:.4f}"
        console.print(f"Trial {trial.number}: {trial.state}{score} ({shown(trial.settings)})")
        too_long = too_long + 1 if trial.state == "failed" else 0
        _drop_weights(study, work.output)


def _drop_weights(study: Study, output: Path) -> None:
    """Keep the weights of the best trials only, and of the first, which all are compared with."""
    trials = study.trials()
    kept = {trial.number for trial in best_trials(trials, KEPT)} | {0}
    for trial in trials:
        run = RunFolder(output / f"trial-{trial.number:03d}")
        if trial.number not in kept:
            shutil.rmtree(run.checkpoints, ignore_errors=True)
            shutil.rmtree(run.model, ignore_errors=True)


def _finish(study: Study, work: Work) -> Tuned:
    """Do the best again with other seeds, and write the winner by the mean over them."""
    trials = study.trials()
    best = best_trials(trials, KEPT)
    means = {trial.number: [trial.score or 0.0] for trial in best}
    for seed in range(1, SEEDS + 1):
        for trial in best if len(best) > 1 else []:
            name = f"trial-{trial.number:03d}-seed-{seed}"
            again = work.recipe_of(trial.settings, work.recipe.trainer.seed + seed)
            try:
                means[trial.number].append(_known(work, name) or work.do(name, again, _ignore))
            except TooLongError:
                break
    whole = {number: found for number, found in means.items() if len(found) == 1 + SEEDS} or means
    winner = max(
        (trial for trial in best if trial.number in whole),
        key=lambda trial: sum(whole[trial.number]) / len(whole[trial.number]),
        default=None,
    )
    return write_tuning(_tuned(work, trials, winner, means), work.output)


def _ignore(_: float, __: float) -> None:
    """Prune nothing."""


def _known(work: Work, name: str) -> float | None:
    """Return the score of a repetition that was done before the search was stopped."""
    run = RunFolder(work.output / name)
    if not run.model.is_dir():
        return None
    work.scores[name] = work.judge.decides(load_encoder(str(run.model)))
    return sum(work.scores[name]) / len(work.scores[name])


def _tuned(
    work: Work, trials: list[Trial], winner: Trial | None, means: dict[int, list[float]]
) -> Tuned:
    """Measure start, recipe and winner on the queries that chose, and start and winner on the recipe's evaluation."""
    start = build_model(work.recipe.model, work.recipe.trainer.accelerator)
    assert isinstance(start, TextEncoder)
    judge = work.judge
    scores = {"start": judge.decides(start.eval())}
    for name, trial in (("recipe", trials[0] if trials else None), ("winner", winner)):
        model = None if trial is None else work.output / f"trial-{trial.number:03d}/model"
        if model is not None and model.is_dir():
            scores[name] = judge.decides(load_encoder(str(model)))
    fresh: dict[str, list[float]] = {}
    task = open_data(work.recipe).evaluation
    if task is not None and winner is not None and "winner" in scores:
        other = Judge(task, (), judge.cache, judge.precision)
        model = work.output / f"trial-{winner.number:03d}/model"
        fresh = {
            "start": other.decides(start),
            "winner": other.decides(load_encoder(str(model))),
        }
    settings = {} if winner is None else winner.settings
    recipe = work.recipe.model_copy(update={"tune": None})
    if winner is not None:
        kept = work.recipe.evaluation
        recipe = work.recipe_of(settings).model_copy(update={"evaluation": kept})
    return Tuned(trials, winner, means, scores, fresh, dump_recipe(recipe))
