"""The command that centres and scales a model's vectors."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = ("embedtrain calibrate runs/ccp/model french.txt --texts --output model-fr",)


def calibrate(
    model: Annotated[str, typer.Argument(help="A dense model: a folder or a Hub id.")],
    data: Annotated[str, typer.Argument(help="Training rows, as in a recipe's data.sources.")],
    output: Annotated[Path, typer.Option(help="Folder to write; must not exist.")],
    split: Annotated[str, typer.Option(help="Of the data.")] = "train",
    texts: Annotated[
        bool, typer.Option("--texts", help="DATA is a file of documents alone, as for encode.")
    ] = False,
    column: Annotated[
        str | None, typer.Option(help="With --texts: name of the text column.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Rows to encode, drawn from all; ten per dimension if left out."),
    ] = None,
) -> None:
    """Centre and scale each dimension of vectors, by texts of one language: one model for each brings languages together."""
    from embedtrain.workflows.rotate import calibrate as run_calibrate

    number = run_calibrate(
        model, data, output, split=split, texts=texts, column=column, limit=limit
    )
    typer.echo(f"{output}: centred and scaled by {number:,} texts; reloaded, same vectors")
