"""The commands that list and show the recipes that come with embedtrain."""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from embedtrain.cli.options import complete_recipe
from embedtrain.errors import UserError
from embedtrain.resources import recipe_names, resource, suggest_recipe

EXAMPLES = (
    "embedtrain recipes",
    "embedtrain recipes show quickstart > my.yaml",
)


class ListsFirst(TyperGroup):
    """Lists the recipes where no command is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's own class
        """Read the words behind ``recipes``."""
        return super().parse_args(ctx, args or ["list"])


recipes = typer.Typer(
    cls=ListsFirst,
    rich_markup_mode="rich",
    help="List the recipes that come with embedtrain; `show NAME` prints one.",
)


@recipes.command("list", epilog="Example: embedtrain recipes | grep distil")
def list_recipes() -> None:
    """List the recipes that come with embedtrain, as `embedtrain recipes` does."""
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


@recipes.command("show", epilog="Example: embedtrain recipes show quickstart > my.yaml")
def show_recipe(
    name: Annotated[
        str,
        typer.Argument(help="As `embedtrain recipes` lists it.", autocompletion=complete_recipe),
    ],
) -> None:
    """Print a recipe's YAML, to read or to begin one's own with."""
    path = resource("recipes") / f"{name.removesuffix('.yaml')}.yaml"
    if not path.is_file():
        raise UserError(name, "is no recipe that comes with embedtrain", cure=suggest_recipe(name))
    typer.echo(path.read_text(encoding="utf-8"), nl=False)


@recipes.command("keys", epilog="Example: embedtrain recipes keys > keys.json")
def show_keys() -> None:
    """Print a JSON Schema of all keys, for editors: # yaml-language-server: $schema=keys.json."""
    from embedtrain.recipe.keys import KEYS

    typer.echo(KEYS.read_text(encoding="utf-8"), nl=False)


def _describe(name: str) -> str:
    """Return a recipe's description without parsing the rest of its YAML."""
    import yaml

    text = (resource("recipes") / f"{name}.yaml").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("description:"))
    return str(yaml.safe_load(line)["description"])
