"""The command that compares a recipe's gradients with those of the plain loss."""

from typing import Annotated

import typer

from embedtrain.cli.options import Overrides, RecipeArgument, read_recipe
from embedtrain.errors import UserError

DEFAULT = "quickstart"
EXAMPLES = (
    "embedtrain doctor quickstart",
    "embedtrain doctor my.yaml trainer.rematerialize=true",
    "embedtrain doctor --tune",
)
TuneOption = Annotated[
    bool,
    typer.Option(
        "--tune",
        help="Time the fused kernels against library products on this GPU instead, and keep the times "
        "for `backend: auto`.",
    ),
]


def doctor(
    recipe: RecipeArgument = DEFAULT, overrides: Overrides = None, tune: TuneOption = False
) -> None:
    """Prove on this machine that a recipe's gradients are those of the plain loss."""
    if tune:
        if recipe != DEFAULT or overrides:
            given = " ".join([recipe, *(overrides or ())])
            cure = "Leave out what follows `doctor` but --tune"
            raise UserError("--tune", "times kernels, not a recipe", got=given, cure=cure)
        _tune()
        return
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


def _tune() -> None:
    """Time both ways of each operation and print what ``auto`` takes from now on."""
    from rich.console import Console
    from rich.table import Table

    from embedtrain.workflows.tuning import tune

    table = Table("Operation", "Type", "Dim", "Scores", "Fused ms", "Chunked ms")
    for one in tune():
        seconds = (one.fused_seconds, one.chunked_seconds)
        sizes = (str(one.dim), f"{one.scores:,}")
        table.add_row(one.operation, one.dtype, *sizes, *(f"{1e3 * s:.3g}" for s in seconds))
    Console().print(table)
