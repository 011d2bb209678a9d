"""The commands that measure and compare models."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from embedtrain.cli.options import LateChunksOption, LongInputsOption
from embedtrain.contract.long_inputs import parse_long_inputs
from embedtrain.errors import UserError

if TYPE_CHECKING:
    from embedtrain.workflows.evaluate.mteb import MtebWish

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
    dim: Annotated[
        int | None, typer.Option(min=1, help="Keep the first dimensions of vectors.")
    ] = None,
    quantize: Annotated[
        Literal["int8", "binary"] | None,
        typer.Option(
            help="Store a byte or a bit per number of a document; binary is scored again."
        ),
    ] = None,
    rescore: Annotated[
        int, typer.Option(min=1, help="Candidates per result that binary scores again.")
    ] = 4,
    price: Annotated[
        float | None, typer.Option(min=0, help="Price of an hour of this machine, for the costs.")
    ] = None,
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
    instruction: Annotated[
        str | None, typer.Option(help="Use the prompts of this one of the model's instructions.")
    ] = None,
    long_inputs: LongInputsOption = None,
    late_chunks: LateChunksOption = None,
) -> None:
    """Score a model on tasks of any kind, with confidence intervals and cost."""
    # Longer than others: most of its lines are its options.
    from rich.console import Console

    longer = parse_long_inputs(long_inputs)
    if mteb:
        from embedtrain.workflows.evaluate.mteb import MtebWish

        refused = baseline or clusters or dim or quantize or price or late_chunks
        mteb_wish = MtebWish(
            mteb, data or [], split, task, prompts, instruction=instruction, long_inputs=longer
        )
        _evaluate_mteb(model, mteb_wish, output, refused)
        return
    if prompts is not None:
        raise UserError("--prompts", "is for --mteb only", cure="The contract has the prompts")

    from embedtrain.evaluation.results.report import result_tables
    from embedtrain.retrieval.compression import Compression
    from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks

    compression = Compression(dim=dim, quantize=quantize, rescore=rescore)
    wish = Wish(
        data or [], split, task, clusters, baseline, efficiency, compression, price, instruction,
        longer, late_chunks,
    )  # fmt: skip
    for result in evaluate_tasks(model, wish, output):
        for table in result_tables(result):
            Console().print(table)


def _evaluate_mteb(model: str, wish: "MtebWish", output: Path | None, refused: object) -> None:
    from rich.console import Console
    from rich.table import Table

    from embedtrain.files import check_folder
    from embedtrain.workflows.evaluate.mteb import evaluate_mteb

    if refused:
        raise UserError(
            "--mteb",
            "does not go with --baseline, --clusters, --dim, --quantize, --price and --late-chunks",
            cure="Use embedtrain compare on the scores/ folders",
        )
    if output is None or output.suffix == ".json":
        raise UserError("--output", "must be a folder with --mteb", got=output and str(output))
    check_folder("--output", output)
    table = Table("task", "subset", "split", "metric", "score")
    for score in evaluate_mteb(model, wish, output):
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


PARETO_EXAMPLE = (
    "Example: embedtrain pareto float.json int8.json binary.json --plot pareto.svg --cost bytes"
)


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


REPORT_EXAMPLE = (
    "Examples: embedtrain report runs/quickstart --output quickstart.html · "
    "embedtrain report mine.json --baseline base.json --data scifact --output page.html"
)


def report(
    sources: Annotated[
        list[Path], typer.Argument(help="A run folder, or result files; queries are of the first.")
    ],
    output: Annotated[Path, typer.Option(help="The .html file to write; JSON goes beside it.")],
    baseline: Annotated[
        Path | None, typer.Option(help="Another model's result file, for wins and losses.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="The data of the first result, for the texts of its queries.")
    ] = None,
) -> None:
    """Write one HTML page about a run or about results; it needs no network."""
    from embedtrain.workflows.evaluate.report import write_report

    typer.echo(write_report(sources, output, baseline=baseline, data=data))
