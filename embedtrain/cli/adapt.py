"""The command that trains adapters of vectors."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = (
    "embedtrain adapt --queries q.npy --documents d.npy --pairs pairs.tsv --output adapter kind=low_rank rank=64 sides=query",
)


def adapt(
    documents: Annotated[
        Path, typer.Option(help=".npy of document vectors, as of `embedtrain encode`.")
    ],
    output: Annotated[Path, typer.Option(help="Folder to write; must not exist.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value of the adapter: kind=linear steps=800")
    ] = None,
    queries: Annotated[Path | None, typer.Option(help=".npy of query vectors.")] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(help="Row of a query, tab, row of its document, from 0; a pair per line."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The model that gave the vectors: write it with the adapter behind it."),
    ] = None,
) -> None:
    """Improve the vectors of any model from pairs, or shorten them, without the model."""
    from embedtrain.recipe.overrides import read_section
    from embedtrain.training.adapters.fit import AdaptConfig
    from embedtrain.workflows.adapt import AdapterFiles
    from embedtrain.workflows.adapt import adapt as run_adapt

    config = read_section(AdaptConfig, overrides or [])
    figures = run_adapt(AdapterFiles(documents, queries, pairs), output, config, model)
    for name, value in figures.items():
        typer.echo(f"{name} {value:.4f}")
    typer.echo(str(output))
