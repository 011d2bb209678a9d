"""The command that lets a teacher score training rows."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from embedtrain.cli.options import PrecisionOption

EXAMPLES = (
    "embedtrain score cross-encoder/ms-marco-MiniLM-L6-v2 --data mined/train.jsonl "
    "--output scored.jsonl",
)


def score(
    teacher: Annotated[
        str,
        typer.Argument(help="A cross-encoder, or an encoder of either kind: a folder or a Hub id."),
    ],
    data: Annotated[
        str, typer.Option(help="Training rows, such as the train.jsonl of `embedtrain mine`.")
    ],
    output: Annotated[Path, typer.Option(help="The .jsonl file to write, with a column scores.")],
    split: Annotated[
        str, typer.Option(help="Split of the data, where there are splits.")
    ] = "train",
    kind: Annotated[
        Literal["cross_encoder", "encoder"] | None,
        typer.Option(help="What the teacher is; left out: as its config.json says."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs scored at once.")] = 32,
    precision: PrecisionOption = "auto",
) -> None:
    """Let a teacher score each query's documents, for distillation; a killed run goes on."""
    from embedtrain.data.examples import SourceConfig
    from embedtrain.workflows.score import score as run_score

    config = SourceConfig(path=data, split=split)
    rows = run_score(teacher, config, output, kind=kind, batch_size=batch_size, precision=precision)
    typer.echo(f"{output}: {rows:,} rows with scores. Distil from them:")
    typer.echo(f'  embedtrain train distill/kl "data.sources=[{{path: {output}}}]"')
