"""The command that sets quality against cost."""

from pathlib import Path
from typing import Annotated, Literal

import typer

EXAMPLES = ("embedtrain pareto float.json int8.json binary.json --plot pareto.svg --cost bytes",)


def pareto(
    results: Annotated[list[Path], typer.Argument(help="Result files of one retrieval task.")],
    metric: Annotated[
        str | None, typer.Option(help="Metric of quality; the main one if left out.")
    ] = None,
    cost: Annotated[
        Literal["bytes", "latency", "encoding"], typer.Option(help="What the plot sets it against.")
    ] = "bytes",
    plot: Annotated[Path | None, typer.Option(help="Picture to write: .svg, .png or .pdf.")] = None,
) -> None:
    """Show quality beside cost, and which results none beats on both."""
    from rich.console import Console

    from embedtrain.evaluation.results.pareto import load_points, pareto_table, plot_pareto

    chosen, points = load_points(results, metric)
    if plot is not None:
        plot_pareto(points, chosen, cost, plot)
    Console().print(pareto_table(points, chosen))
