"""The command that chooses which weights of a run to ship."""

from pathlib import Path
from typing import Annotated, Literal

import typer

EXAMPLES = (
    "embedtrain select runs/a --output chosen",
    "embedtrain select runs/a runs/b runs/c --data scifact --split dev --guard cranfield --output chosen",
)


def select(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs, of one start.")],
    output: Annotated[Path, typer.Option(help="Model folder to write; must not exist.")],
    base: Annotated[
        str | None, typer.Option(help="What they started from; left out: the first run's backbone.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="BEIR folder that decides; left out: the first run's validation."),
    ] = None,
    split: Annotated[str, typer.Option(help="Of the data; not the split you report.")] = "dev",
    guard: Annotated[
        list[str] | None,
        typer.Option(help="Tasks that must not lose more than a point, as for evaluate."),
    ] = None,
    guard_split: Annotated[str | None, typer.Option(help="Of the guarded tasks.")] = None,
    errors: Annotated[
        float,
        typer.Option(help="Standard errors that weights nearer to an end may lack; 0: the best."),
    ] = 1.0,
    toward: Annotated[
        Literal["start", "end"],
        typer.Option(help="Which end: start, where less is forgotten, or end of training."),
    ] = "start",
) -> None:
    """Choose between a run's start, its best and last weights, means, and points on the way back to the start."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from embedtrain.workflows.select.select import SelectWish
    from embedtrain.workflows.select.select import select as run_select

    wish = SelectWish(runs, base, data, split, guard or (), guard_split, errors, toward)
    found = run_select(wish, output)
    guards = list(found.points[-1].guards)
    table = Table("Weights", "nDCG@10", *map(escape, guards))
    for point in found.points:
        cells = [f"{point.guards[name]:+.4f}" if point.guards else "" for name in guards]
        style = "bold" if point is found.chosen else None
        table.add_row(escape(point.name), f"{point.mean:.4f}", *cells, style=style)
    Console().print(table)
    typer.echo(f"{output}: reloaded, same vectors")
