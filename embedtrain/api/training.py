"""Train, go on, check, mine and export from Python."""

from pathlib import Path

from embedtrain.data.examples import SourceConfig
from embedtrain.data.given import keep_rows
from embedtrain.data.sources import check_early
from embedtrain.mining.output import MiningFolder
from embedtrain.mining.settings import MiningConfig
from embedtrain.recipe.overrides import read_section
from embedtrain.recipe.reading import Overrides, as_words
from embedtrain.recipe.retrieval import AnyRecipe, GivenRecipe, Recipe, load_recipe
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.release.export import export
from embedtrain.workflows import check as checking
from embedtrain.workflows import train as runs
from embedtrain.workflows.mine import mine as mine_negatives

__all__ = ["check", "export", "mine", "resume", "train"]


def train(
    recipe: GivenRecipe, output: str | Path, *, data: object = None, overrides: Overrides = ()
) -> RunFolder:
    """Train a recipe from the beginning: measure, train, measure again, export to ``output/model``.

    Args:
        recipe: A YAML file, the name of a recipe that comes with the package, a dict of the same sections, or a
            :class:`Recipe`. In a dict a source may be ``{"rows": rows}``, and ``evaluation`` and ``validation``
            ``{"queries": ..., "documents": ..., "qrels": ...}``.
        output: Folder of the run; must not exist.
        data: In place of the recipe's sources: a path, or rows in memory, such as a list of
            ``{"query": ..., "positive": ...}``, a generator, a ``datasets.Dataset`` or a frame of pandas or
            polars. The run keeps a copy.
        overrides: Keys to set, ``{"trainer.steps": 100}`` or ``["trainer.steps=100"]``.

    Returns:
        The run's folder; ``.model`` is the path of the trained model, ``.evaluation`` that of its scores.

    Raises:
        UserError: If the recipe, the data or the output folder is not usable.
    """
    return runs.train(_read(recipe, overrides, data), Path(output))


def resume(run: str | Path, overrides: Overrides = ()) -> RunFolder:
    """Continue a run from its newest checkpoint, exactly as if it had never stopped.

    Raises:
        UserError: If it is no run, its data changed, or ``overrides`` change what it computes.
    """
    return runs.resume(Path(run), as_words(overrides))


def check(
    recipe: GivenRecipe, *, data: object = None, overrides: Overrides = ()
) -> checking.CheckReport:
    """Load the model, tokenise the data and measure one small step of a recipe; train nothing.

    Raises:
        UserError: For whatever would stop :func:`train`.
    """
    return checking.check(_read(recipe, overrides, data))


def mine(
    model: str | Path,
    data: object,
    output: str | Path,
    settings: Overrides = (),
    *,
    split: str = "train",
) -> MiningFolder:
    """Mine hard negatives for training rows and keep false ones out.

    Args:
        model: The teacher, whose scores decide: a model folder, a run's ``model/`` or a Hub id.
        data: A path (BEIR folder, ``python_docs``, training rows), or rows in memory as for :func:`train`.
        output: Folder to write; started again, it goes on where it was.
        settings: Of :class:`MiningConfig`: ``{"num_negatives": 7, "rule.kind": "margin"}``.
        split: Which judgments, where the data have splits.

    Returns:
        The folder; ``.training`` is the path of the rows to train on.

    Raises:
        UserError: If data, model or settings are not usable.
    """
    path = str(data if isinstance(data, str | Path) else keep_rows(data))
    check_early(SourceConfig(path=path))
    chosen = read_section(MiningConfig, settings)
    return mine_negatives(str(model), path, Path(output), chosen, split=split)


def _read(recipe: GivenRecipe, overrides: Overrides, data: object) -> AnyRecipe:
    """Read a recipe, and what it is given in this session, before anything is loaded."""
    found = load_recipe(recipe, overrides, data)
    for source in found.data.sources if isinstance(found, Recipe) else ():
        check_early(source)
    return found
