"""The commands that measure and compare models."""

from pathlib import Path
from typing import Annotated

import typer

from embedtrain.errors import UserError

EVALUATE_EXAMPLE = (
    "Examples: embedtrain evaluate runs/quickstart/model --data scifact --output scifact.json · "
    "embedtrain evaluate my-model --data scifact --data sts/stsb-en --data banking77.test.jsonl "
    "--output scores · embedtrain evaluate my-model --mteb SciFact --data SciFact=scifact --output mteb"
)


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="A run's model/ folder, any sentence-transformers folder, or a Hub id."
        ),
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="A BEIR folder, python_docs, or .jsonl rows of any kind of task; may be repeated. "
            "With --mteb, TASK=PATH replaces the Hub's data of a task."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Which split of the data; test if left out.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="A .json file, or a folder for any number of tasks; what is done is kept."
        ),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Another model's file or folder, for a paired test.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Kind of task, where the data could be of several.")
    ] = None,
    clusters: Annotated[
        str | None,
        typer.Option(help="Column of labels of queries or items that are not independent."),
    ] = None,
    efficiency: Annotated[
        bool, typer.Option(help="Time encoding and search of retrieval as well.")
    ] = True,
    mteb: Annotated[
        list[str] | None,
        typer.Option(
            help='A benchmark ("MTEB(eng, v2)") or task of mteb, or "local" for only the --data given; '
            "--output is then a folder."
        ),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="With --mteb: JSON of prompts by mteb's names.")
    ] = None,
) -> None:
    """Score a model on tasks of any kind, with confidence intervals and cost."""
    from rich.console import Console

    if mteb:
        _evaluate_mteb(model, mteb, data or [], split, task, prompts, output, baseline or clusters)
        return
    if prompts is not None:
        raise UserError("--prompts", "is for --mteb only", cure="The contract has the prompts")

    from embedtrain.evaluate_tasks import Wish, evaluate_tasks
    from embedtrain.evaluation.report import result_tables

    wish = Wish(data or [], split, task, clusters, baseline, efficiency)
    for result in evaluate_tasks(model, wish, output):
        for table in result_tables(result):
            Console().print(table)


def _evaluate_mteb(
    model: str,
    names: list[str],
    data: list[str],
    split: str | None,
    task: str | None,
    prompts: Path | None,
    output: Path | None,
    refused: object,
) -> None:
    from rich.console import Console
    from rich.table import Table

    from embedtrain.evaluate_mteb import MtebWish, evaluate_mteb

    if refused:
        raise UserError(
            "--mteb",
            "does not go with --baseline and --clusters",
            cure="Use embedtrain compare on the scores/ folders",
        )
    if output is None or output.suffix == ".json":
        raise UserError("--output", "must be a folder with --mteb", got=output and str(output))
    table = Table("task", "subset", "split", "metric", "score")
    for score in evaluate_mteb(model, MtebWish(names, data, split, task, prompts), output):
        table.add_row(score.task, score.subset, score.split, score.metric, f"{score.value:.4f}")
    Console().print(table)


COMPARE_EXAMPLE = (
    "Examples: embedtrain compare baseline.json mine.json · "
    "embedtrain compare scores/baseline scores/mine scores/other --plot difference.svg"
)


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

    from embedtrain.evaluation.comparison import (
        compare_systems,
        comparison_table,
        load_systems,
        write_comparison,
    )
    from embedtrain.evaluation.plots import plot_comparison

    systems = load_systems(results)
    rows = compare_systems(systems, metric)
    if output is not None:
        write_comparison(rows, systems[0].name, output)
    if plot is not None:
        plot_comparison(rows, systems[0].name, plot)
    Console().print(comparison_table(rows, systems[0].name))
