"""The command that compares a recipe's gradients with those of the plain loss."""

import typer

from embedtrain.cli.options import Overrides, RecipeArgument, read_recipe

EXAMPLES = ("embedtrain doctor quickstart", "embedtrain doctor my.yaml trainer.rematerialize=true")


def doctor(recipe: RecipeArgument = "quickstart", overrides: Overrides = None) -> None:
    """Prove on this machine that a recipe's gradients are those of the plain loss."""
    loaded = read_recipe(recipe, overrides)
    from rich.console import Console
    from rich.table import Table

    from embedtrain.cli.printing import print_findings
    from embedtrain.recipe.retrieval import refuse_pretraining
    from embedtrain.workflows.doctor import diagnose
    from embedtrain.workflows.gpu import find, read_facts

    if (facts := read_facts()) is not None:
        print_findings(find(facts))
    diagnosis = diagnose(refuse_pretraining(loaded, recipe))
    table = Table("Parameters", "Gradient norm", "Relative error")
    for group in diagnosis.groups:
        table.add_row(group.name, f"{group.norm:.3g}", f"{group.relative_error:.2e}")
    Console().print(table)
    verdict = "within" if diagnosis.healthy else "ABOVE"
    typer.echo(
        f"loss {diagnosis.loss:.6f}, plain {diagnosis.plain_loss:.6f}; "
        f"gradients {verdict} the bound of {diagnosis.bound:.0e}"
    )
    if not diagnosis.healthy:
        raise typer.Exit(1)
