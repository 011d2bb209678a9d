"""The commands that list and show the recipes that come with embedtrain."""

import sys
from typing import Annotated

import typer

from embedtrain.cli.options import complete_recipe, recipe_names
from embedtrain.errors import UserError
from embedtrain.resources import resource

EXAMPLES = (
    "embedtrain recipes",
    "embedtrain recipes show quickstart > my.yaml",
)

recipes = typer.Typer(no_args_is_help=False, rich_markup_mode="rich")


@recipes.callback(invoke_without_command=True)
def list_recipes(context: typer.Context) -> None:
    """List the recipes that come with embedtrain; `show NAME` prints one."""
    if context.invoked_subcommand is not None:
        return
    described = {name: _describe(name) for name in recipe_names()}
    if not sys.stdout.isatty():  # for grep: one line each, cut nowhere
        for name, description in described.items():
            typer.echo(f"{name}\t{description}")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("Recipe", "What it is for")
    for row in described.items():
        table.add_row(*row)
    Console().print(table)


@recipes.command(epilog="Example: embedtrain recipes show quickstart > my.yaml")
def show(
    name: Annotated[
        str,
        typer.Argument(help="As `embedtrain recipes` lists it.", autocompletion=complete_recipe),
    ],
) -> None:
    """Print a recipe's YAML, to read or to begin one's own with."""
    path = resource("recipes") / f"{name.removesuffix('.yaml')}.yaml"
    if not path.is_file():
        from difflib import get_close_matches

        close = get_close_matches(name, recipe_names(), 1)
        cure = f"Did you mean {close[0]}?" if close else "See `embedtrain recipes`"
        raise UserError(name, "is no recipe that comes with embedtrain", cure=cure)
    typer.echo(path.read_text(encoding="utf-8"), nl=False)


def _describe(name: str) -> str:
    """Return a recipe's description without parsing the rest of its YAML."""
    import yaml

    text = (resource("recipes") / f"{name}.yaml").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("description:"))
    return str(yaml.safe_load(line)["description"])
