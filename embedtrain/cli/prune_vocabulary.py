"""The command that takes words out of a model's vocabulary."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = (
    "embedtrain prune-vocabulary org/multilingual-model corpus.jsonl queries.jsonl --output smaller",
    "embedtrain prune-vocabulary runs/quickstart/model corpus.jsonl --min-count 3 --output smaller",
)


def prune_vocabulary(
    model: Annotated[
        str, typer.Argument(help="A dense or late-interaction model: a folder or a Hub id.")
    ],
    corpus: Annotated[
        list[Path], typer.Argument(help="Files of texts, as for encode; queries as well.")
    ],
    output: Annotated[Path, typer.Option(help="Folder to write; must not exist.")],
    column: Annotated[str | None, typer.Option(help="Name of the text column.")] = None,
    min_count: Annotated[
        int,
        typer.Option(min=1, help="Drop entries used more seldom; above 1 rare words are cut anew."),
    ] = 1,
) -> None:
    """Keep the words that a corpus needs: a smaller model with the same vectors of its texts."""
    from embedtrain.units import show_bytes
    from embedtrain.workflows.prune_vocabulary import prune

    done = prune(model, corpus, output, column=column, min_count=min_count)
    typer.echo(f"entries {done.before:,} -> {done.after:,}")
    typer.echo(f"weights {show_bytes(done.bytes_before)} -> {show_bytes(done.bytes_after)}")
    typer.echo(f"texts {done.texts:,}, cut otherwise {done.differing:,}")
    typer.echo(f"tokens of one text in ten that the others lack {done.missing:.2%}")
    typer.echo(f"largest difference of a coordinate {done.difference:.1e}")
    typer.echo(f"{output}: reloaded, same vectors")
