"""The command that shows what a recipe would do."""

from embedtrain.cli.options import Overrides, RecipeArgument, read_recipe

EXAMPLES = ("embedtrain check quickstart trainer.batch_size=128",)


def check(recipe: RecipeArgument, overrides: Overrides = None) -> None:
    """Validate a recipe and show what it would do, without training."""
    loaded = read_recipe(recipe, overrides)
    from embedtrain.cli.printing import print_report
    from embedtrain.workflows.check import check as run_check

    print_report(run_check(loaded))
