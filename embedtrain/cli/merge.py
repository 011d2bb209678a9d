"""The command that merges models."""

from pathlib import Path
from typing import Annotated, Literal

import typer

EXAMPLES = (
    "embedtrain merge runs/a/model runs/b/model --output merged --weight 0.7 --weight 0.3",
    "embedtrain merge runs/a/model other-model --method concatenate --output both",
    "embedtrain merge runs/a/model runs/b/model --method delta --base org/start --grid 4 --data scifact --data sts/stsb-en --split dev --output merged",
)


def merge(
    models: Annotated[list[str], typer.Argument(help="Model folders or Hub ids, of one start.")],
    output: Annotated[Path, typer.Option(help="Folder to write; must not exist.")],
    method: Annotated[
        Literal["linear", "slerp", "task_vectors", "delta", "concatenate"],
        typer.Option(
            help="How to mix; concatenate puts the vectors of any two models side by side."
        ),
    ] = "linear",
    weight: Annotated[
        list[float] | None, typer.Option(help="Share of each model, in their order.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="What all were trained from: task_vectors and delta.")
    ] = None,
    granularity: Annotated[
        Literal["tensor", "row", "element"], typer.Option(help="Where delta compares changes.")
    ] = "tensor",
    grid: Annotated[
        int, typer.Option(min=0, help="Try so many steps from one model to the other.")
    ] = 0,
    data: Annotated[
        list[str] | None, typer.Option(help="With --grid: tasks that decide, as for evaluate.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="With --grid: not the split you report.")
    ] = None,
) -> None:
    """Merge models: soup, arc, task vectors or delta-guided fusion, or two side by side; try a grid in one command.

    Delta-guided fusion is CoDiEmb's idea; the paper does not publish its formula; ours weighs by the size of the
    parameter's change.
    """
    from rich.console import Console
    from rich.table import Table

    from embedtrain.workflows.merge import MergeWish
    from embedtrain.workflows.merge import merge as run_merge

    wish = MergeWish(models, method, weight or (), base, granularity, grid, data or (), split)
    points = run_merge(wish, output)
    if grid:
        names = list(points[0].scores)
        table = Table("Shares", "Granularity", *names, "Mean")
        best = max(points, key=lambda point: point.mean)
        for point in points:
            cells = [f"{point.scores[name]:.4f}" for name in names]
            shares = " ".join(f"{share:.2f}" for share in point.shares)
            style = "bold" if point is best else None
            table.add_row(shares, point.granularity, *cells, f"{point.mean:.4f}", style=style)
        Console().print(table)
    typer.echo(f"{output}: reloaded, same vectors")
