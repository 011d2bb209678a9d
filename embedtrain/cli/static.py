"""The command that makes static word embeddings."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = (
    "embedtrain static runs/quickstart/model sentences.txt --output static dim=256 steps=2000",
)


def static(
    model: Annotated[str, typer.Argument(help="The teacher: a folder or Hub id.")],
    texts: Annotated[
        Path, typer.Argument(help=".jsonl(.gz) with a text column, or a sentence per line.")
    ],
    output: Annotated[Path, typer.Option(help="Folder to write; must not exist.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value: dim=256 removed=7 steps=2000")
    ] = None,
    column: Annotated[str | None, typer.Option(help="Name of the text column.")] = None,
) -> None:
    """Make a table of words from an encoder: sums of rows are embeddings, a thousand times faster."""
    from embedtrain.recipe.overrides import read_section
    from embedtrain.workflows.static import StaticConfig, make_static

    config = read_section(StaticConfig, overrides or [])
    for name, value in make_static(model, texts, output, config, column).items():
        typer.echo(f"{name} {value:.4f}")
    typer.echo(str(output))
