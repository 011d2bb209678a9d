"""The command that trains a recipe, of one stage or of several."""

from pathlib import Path
from typing import Annotated

import typer

from embedtrain.cli.options import Overrides, complete_recipe
from embedtrain.errors import Refused, UserError
from embedtrain.locks import owns
from embedtrain.resources import find_recipe

EXAMPLES = (
    "embedtrain train quickstart --output runs/a trainer.steps=50",
    'embedtrain train my.yaml --output runs/b "data.sources=[{path: pairs.jsonl}]"',
    "embedtrain train --resume runs/a",
)


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A YAML file, or the name of a recipe.", autocompletion=complete_recipe
        ),
    ] = None,
    overrides: Overrides = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the run; must not exist.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue this run exactly where its last checkpoint is.")
    ] = None,
) -> None:
    """Train a recipe: measure, train, measure again, export."""
    if resume is not None:
        changes = [*([recipe] if recipe else []), *(overrides or ())]
        if output or (recipe and "=" not in recipe):
            raise UserError(
                "--resume", "takes the recipe from the run", cure="Give trainer.key=value at most"
            )
        _resume(resume, changes)
        return
    if recipe is None:
        raise UserError("RECIPE", "is missing", cure="See `embedtrain recipes`")
    _train(recipe, overrides, output or Path("runs") / Path(recipe).stem)


@owns("output")
def _train(recipe: str, overrides: list[str] | None, output: Path) -> None:
    from embedtrain.files import refuse_existing
    from embedtrain.recipe.keys import check_keys
    from embedtrain.training.ranks.launcher import speaks

    path = find_recipe(recipe)
    if check_keys(path, overrides or ()) == "Pipeline":
        from embedtrain.workflows.pipeline import load_pipeline, run_pipeline

        _print_pipeline(run_pipeline(load_pipeline(path, overrides or ()), output))
        return
    if speaks():  # other ranks may find what the first one has begun
        refuse_existing(output)
    from embedtrain.recipe.retrieval import load_recipe
    from embedtrain.workflows.train import train as run_train

    _print(run_train(load_recipe(path, overrides or ()), output).path)


def _resume(run: Path, changes: list[str]) -> None:
    from embedtrain.files import refuse_no_run

    if not changes and (run / "pipeline.yaml").is_file():
        from embedtrain.workflows.pipeline import resume_pipeline

        _print_pipeline(resume_pipeline(run))
        return
    refuse_no_run(run)
    from embedtrain.workflows.train import resume as resume_run

    _print(resume_run(run, changes).path)


def _print(run: Path) -> None:
    from embedtrain.cli.printing import print_run
    from embedtrain.training.ranks.launcher import speaks

    if speaks():
        print_run(run)


def _print_pipeline(output: Path) -> None:
    from embedtrain.cli.printing import print_pipeline
    from embedtrain.workflows.pipeline import find_refusal

    print_pipeline(output)
    refusal = find_refusal(output)
    if refusal is not None:
        raise Refused(refusal)
