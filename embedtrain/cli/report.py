"""The command that writes an HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from embedtrain.errors import UserError

EXAMPLES = (
    "embedtrain report runs/quickstart --output quickstart.html",
    "embedtrain report mine.json --baseline base.json --data scifact --output page.html",
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
    for path in (*sources, *([] if baseline is None else [baseline])):
        if not path.exists():
            cure = "Give a run folder, or what `embedtrain evaluate` wrote"
            raise UserError(path, "does not exist", cure=cure)
    from embedtrain.workflows.evaluate.report import write_report

    typer.echo(write_report(sources, output, baseline=baseline, data=data))
