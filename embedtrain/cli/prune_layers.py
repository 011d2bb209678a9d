"""The command that takes layers out of a model, or heads and columns out of its layers."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = (
    "embedtrain prune-layers runs/quickstart/model texts.jsonl --keep 3 --output start",
    "embedtrain prune-layers runs/quickstart/model texts.jsonl --columns 768 --output start",
)


def prune_layers(
    model: Annotated[str, typer.Argument(help="A dense model: a folder or a Hub id.")],
    texts: Annotated[Path, typer.Argument(help="A file of texts, as for encode.")],
    output: Annotated[Path, typer.Option(help="Folder to write; must not exist.")],
    keep: Annotated[
        int | None, typer.Option(min=1, help="Layers that stay; 3 where nothing else goes.")
    ] = None,
    heads: Annotated[
        int | None, typer.Option(min=1, help="Attention heads that stay in each layer.")
    ] = None,
    columns: Annotated[
        int | None, typer.Option(min=1, help="Feed-forward columns that stay in each layer.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="Name of the text column.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Texts at most that are encoded.")] = 500,
) -> None:
    """Keep the layers, heads and columns that vectors miss the most: a start for distilling a smaller model."""
    from embedtrain.workflows.prune_layers import prune_layers as prune

    if keep is None and heads is None and columns is None:
        keep = 3
    kept = prune(
        model, texts, output, keep,
        heads=heads, columns=columns, column=column, limit=limit, told=typer.echo,
    )  # fmt: skip
    if kept is not None and heads is None and columns is None:
        typer.echo(f"model.kept_layers={list(kept)} is the same of {model}")
    typer.echo(f"{output}: reloaded, same vectors")
