"""The command that sets quality against cost."""

from pathlib import Path
from typing import Annotated, Literal

import typer

EXAMPLES = (
    "embedtrain pareto float.json int8.json binary.json --plot pareto.svg --cost bytes",
    "embedtrain pareto --model runs/small/model --data my_task --output forms --budget 64B --min 0.97",
)


def pareto(
    results: Annotated[
        list[Path] | None, typer.Argument(help="Result files of one retrieval task.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Metric of quality; the main one if left out.")
    ] = None,
    cost: Annotated[
        Literal["bytes", "latency", "encoding"], typer.Option(help="What the plot sets it against.")
    ] = "bytes",
    plot: Annotated[Path | None, typer.Option(help="Picture to write: .svg, .png or .pdf.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="In place of results: a dense or late-interaction model, encoded once, stored in every form."
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="With --model: a retrieval task.")] = None,
    split: Annotated[str, typer.Option(help="Of --data.")] = "test",
    output: Annotated[
        Path | None, typer.Option(help="With --model: folder of table and picture; must not exist.")
    ] = None,
    dim: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="With --model: a size to cut to; halves if none, late interaction whole."
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Bytes per document, as 64B: name the best within them.")
    ] = None,
    least: Annotated[
        float, typer.Option("--min", min=0.0, max=1.0, help="Share of the best quality to keep.")
    ] = 0.0,
) -> None:
    """Show quality beside cost, which none beats on both, and what a budget buys; code 1 if it buys too little."""
    from rich.console import Console

    from embedtrain.errors import UserError
    from embedtrain.evaluation.results import budget as buying
    from embedtrain.evaluation.results.pareto import load_points, pareto_table, plot_pareto

    limit = None if budget is None else buying.parse_budget(budget)
    if (model is None) == (not results):
        raise UserError("pareto", "takes result files or --model", cure="Give one of the two")
    if model is not None:
        from embedtrain.workflows.pareto import METRIC, sweep

        if data is None or output is None or metric is not None:
            cure = "Add both, and leave out --metric: it is nDCG@10"
            raise UserError("--model", "needs --data and --output", cure=cure)
        chosen, points = METRIC, sweep(model, data, output, split=split, dims=dim or ())
    else:
        chosen, points = load_points(results or [], metric)
    if plot is not None:
        plot_pareto(points, chosen, cost, plot)
    Console().print(pareto_table(points, chosen))
    if limit is not None:
        choice = buying.choose(points, limit, least)
        where = " (chosen on test)" if model is not None and split == "test" else ""
        typer.echo(buying.sentence(choice, limit, least) + where)
        raise typer.Exit(0 if choice.fits else 1)
