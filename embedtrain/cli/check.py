"""The command that shows what a recipe would do."""

from typing import Annotated

import typer

from embedtrain.cli.options import Overrides, RecipeArgument, read_recipe

EXAMPLES = (
    "embedtrain check quickstart trainer.batch_size=128",
    "embedtrain check quickstart --device h100",
)


def check(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    *,
    device: Annotated[
        str | None,
        typer.Option(help="Predict, by its data sheet, the speed on this GPU: h100, a100, l4."),
    ] = None,
) -> None:
    """Validate a recipe and show what it would do, without training."""
    loaded = read_recipe(recipe, overrides)
    from embedtrain.cli.printing import print_report
    from embedtrain.workflows.check import check as run_check

    print_report(run_check(loaded, device))
