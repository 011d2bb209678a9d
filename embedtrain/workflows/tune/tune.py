"""Workflow: try settings of a recipe until the time is over, and write the best as a recipe of its own."""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from embedtrain.errors import UserError
from embedtrain.files import refuse_existing, write_file
from embedtrain.locks import owned, owns
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.progress import console
from embedtrain.recipe.retrieval import Recipe, dump_recipe, load_recipe, load_retrieval_recipe
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.stopping import going_on
from embedtrain.training.automatic import ROWS_PER_BATCH
from embedtrain.training.search_space import SearchedKey, TuneConfig
from embedtrain.workflows.check import check
from embedtrain.workflows.prepare import open_data
from embedtrain.workflows.tune.finish import contenders, finish
from embedtrain.workflows.tune.report import Tuned
from embedtrain.workflows.tune.study import Settings, Study, TooLongError, shown
from embedtrain.workflows.tune.work import Work

ASKED, RESOLVED = "asked.yaml", "tune.yaml"
RATE = "trainer.learning_rate"
SEARCH_SHARE = 0.6
"""Of the budget; the rest is for the further seeds."""


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
        _drop_failed(study, output)
        _search(study, work)
        work.deadline = began + budget
        return finish(study, work)


def _begin(recipe: Recipe, output: Path) -> tuple[Recipe, int, float]:
    """Resolve the recipe and its space once, keep both, and expect a time for a row and pass."""
    asked = dump_recipe(recipe)
    known = (output / ASKED).is_file()
    if known and (output / ASKED).read_text(encoding="utf-8") != asked:
        cure = "Choose another --output, or remove the folder"
        raise UserError(output, "holds the search of another recipe", cure=cure)
    if not known:
        refuse_existing(output)
        if recipe.tune is not None:  # before anything is read
            _check_space(recipe, recipe.tune.space)
    report = check(recipe)
    rows = sum(source.num_rows for _, source in report.sources if hasattr(source, "num_rows"))
    resolved = load_retrieval_recipe(output / RESOLVED) if known else report.recipe
    assert isinstance(resolved, Recipe)
    if not known:
        config = resolved.tune or TuneConfig(space=usual_space(resolved, rows))
        resolved = resolved.model_copy(update={"tune": config})
        _check_space(resolved, config.space)
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


def _check_space(recipe: Recipe, space: Sequence[SearchedKey]) -> None:
    """Refuse a key that the recipe does not have, or a value that it cannot take, before the first trial."""
    for key in space:
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


def _drop_failed(study: Study, output: Path) -> None:
    """Remove what a killed trial left: it is done again under another number."""
    for trial in study.trials():
        if trial.state == "failed":
            folder = output / f"trial-{trial.number:03d}"
            with owned(folder):  # takes a dead owner's lock away
                shutil.rmtree(folder, ignore_errors=True)


def _drop_weights(study: Study, output: Path) -> None:
    """Keep the weights of those trials only that may yet be done again."""
    trials = study.trials()
    kept = {trial.number for trial in contenders(trials)}
    for trial in trials:
        run = RunFolder(output / f"trial-{trial.number:03d}")
        if trial.number not in kept:
            shutil.rmtree(run.checkpoints, ignore_errors=True)
            shutil.rmtree(run.model, ignore_errors=True)
