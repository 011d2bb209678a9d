"""The command that turns a model's vectors to their principal components."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = (
    "embedtrain rotate runs/quickstart/model python_docs --output rotated",
    "embedtrain rotate org/model corpus.txt --texts --output rotated",
)


def rotate(
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
    """Turn vectors so that they may be cut: whole ones compare as before, prefixes keep the most of such texts."""
    from embedtrain.workflows.rotate import rotate as run_rotate

    kept = run_rotate(model, data, output, split=split, texts=texts, column=column, limit=limit)
    for dim, share in kept.items():
        typer.echo(f"squared_length_in_first_{dim} {share:.4f}")
    typer.echo(f"{output}: reloaded, same vectors")
