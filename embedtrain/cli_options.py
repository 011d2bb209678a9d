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
