"""The command that takes layers out of a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from embedtrain.models.edits.prune_layers import Round

EXAMPLES = ("embedtrain prune-layers runs/quickstart/model texts.jsonl --keep 3 --output start",)


def prune_layers(
    model: Annotated[str, typer.Argument(help="A dense model: a folder or a Hub id.")],
    texts: Annotated[Path, typer.Argument(help="A file of texts, as for encode.")],
    output: Annotated[Path, typer.Option(help="Folder to write; must not exist.")],
    keep: Annotated[int, typer.Option(min=1, help="Layers that stay.")] = 3,
    column: Annotated[str | None, typer.Option(help="Name of the text column.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Texts at most that are encoded.")] = 500,
) -> None:
    """Keep the layers that vectors miss the most: a start for distilling a smaller model."""
    from embedtrain.workflows.prune_layers import prune_layers as prune

    last = prune(model, texts, output, keep, column=column, limit=limit, told=_say)
    typer.echo(f"model.kept_layers={list(last.kept)} is the same of {model}")
    typer.echo(f"{output}: reloaded, same vectors")


def _say(found: "Round") -> None:
    kept = ", ".join(map(str, found.kept))
    typer.echo(f"layers {kept}: distance {found.distance:.3f}; the worst choice, {found.worst:.3f}")
