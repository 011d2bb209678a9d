"""Options that several commands take."""

from typing import Annotated

import typer

LongInputsOption = Annotated[
    str | None,
    typer.Option(
        metavar="METHOD:LENGTH",
        help="Read documents of so many tokens, beyond what the model was trained on: grouped:2048. "
        "Methods: grouped, interpolated, recurrent, ntk, self_extend.",
    ),
]
LateChunksOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Give documents a vector per chunk of so many tokens at most, made after the document was "
        "read whole (late chunking).",
    ),
]
