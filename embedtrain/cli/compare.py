"""The command that compares results."""

from pathlib import Path
from typing import Annotated

import typer

from embedtrain.locks import owns

EXAMPLES = (
    "embedtrain compare baseline.json mine.json",
    "embedtrain compare scores/baseline scores/mine scores/other --plot difference.svg",
)


@owns("output")
def compare(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="Result files of one task, or folders of several tasks; the first is the baseline."
        ),
    ],
    metric: Annotated[
        str | None, typer.Option(help="Metric to compare; each task's main one if left out.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Picture to write: .svg, .png or .pdf.")] = None,
) -> None:
    """Compare systems with a baseline: paired tests, corrected for their number."""
    from rich.console import Console

    from embedtrain.evaluation.results.comparison import (
        compare_systems,
        comparison_table,
        load_systems,
        write_comparison,
    )
    from embedtrain.evaluation.results.plots import plot_comparison
    from embedtrain.files import check_file

    if output is not None:
        check_file("--output", output)
    systems = load_systems(results)
    rows = compare_systems(systems, metric)
    if output is not None:
        write_comparison(rows, systems[0].name, output)
    if plot is not None:
        plot_comparison(rows, systems[0].name, plot)
    Console().print(comparison_table(rows, systems[0].name))
