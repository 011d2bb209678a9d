"""The commands that measure and compare models."""

from pathlib import Path
from typing import Annotated

import typer

EVALUATE_EXAMPLE = (
    "Examples: embedtrain evaluate runs/quickstart/model --data scifact --output scifact.json · "
    "embedtrain evaluate my-model --data scifact --data sts/stsb-en --data banking77.test.jsonl "
    "--output scores"
)


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="A run's model/ folder, any sentence-transformers folder, or a Hub id."
        ),
    ],
    data: Annotated[
        list[str],
        typer.Option(
            help="A BEIR folder, python_docs, or .jsonl rows of any kind of task; may be repeated."
        ),
    ],
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
) -> None:
    """Score a model on tasks of any kind, with confidence intervals and cost."""
    from rich.console import Console

    from embedtrain.evaluate_tasks import Wish, evaluate_tasks
    from embedtrain.evaluation.report import result_tables

    wish = Wish(data, split, task, clusters, baseline, efficiency)
    for result in evaluate_tasks(model, wish, output):
        for table in result_tables(result):
            Console().print(table)
