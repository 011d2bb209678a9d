"""The command that turns a model's vectors to their principal components, or towards their signs."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

EXAMPLES = (
    "embedtrain rotate runs/quickstart/model python_docs --output rotated",
    "embedtrain rotate org/model corpus.txt --texts --output rotated",
    "embedtrain rotate org/model corpus.txt --texts --for binary --dim 192 --output bits",
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
        typer.Option(
            min=1,
            help="Rows to encode, drawn from all; ten per dimension if left out, of bits thirty.",
        ),
    ] = None,
    purpose: Annotated[
        Literal["cuts", "binary"],
        typer.Option("--for", help="Vectors that are cut, or stored as one bit per dimension."),
    ] = "cuts",
    dim: Annotated[
        int | None, typer.Option(min=1, help="With --for binary: dimensions to keep.")
    ] = None,
    steps: Annotated[
        int,
        typer.Option(
            min=0,
            help="With --for binary: steps of learning after ITQ, where DATA stands for other texts: 400.",
        ),
    ] = 0,
) -> None:
    """Turn vectors so that they may be cut, or stored as bits: whole ones compare as before, cuts or bits keep more."""
    from embedtrain.errors import UserError
    from embedtrain.workflows import rotate as work

    how: dict[str, Any] = {"split": split, "texts": texts, "column": column, "limit": limit}
    if purpose == "binary":
        before, after = work.rotate_for_bits(model, data, output, dim=dim, steps=steps, **how)
        typer.echo(f"cosine_with_signs {before:.4f} -> {after:.4f}")
    elif dim is not None or steps:
        cure = "Cut with export --dim"
        raise UserError("--dim and --steps", "go with --for binary", got=dim or steps, cure=cure)
    else:
        for size, share in work.rotate(model, data, output, **how).items():
            typer.echo(f"squared_length_in_first_{size} {share:.4f}")
    typer.echo(f"{output}: reloaded, same vectors")
