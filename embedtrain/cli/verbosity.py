"""How much the commands say while they work: ``--quiet`` and ``--verbose``, before or after a command's name."""

import inspect
import os
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from embedtrain.errors import UserError
from embedtrain.progress import VERBOSITY, is_verbose

QuietOption = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Only results and errors."),
]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Also what was chosen and why, and where an error arose.",
    ),
]  # fmt: skip
OPTIONS = {"quiet": QuietOption, "verbose": VerboseOption}


def choose_verbosity(*, quiet: bool, verbose: bool) -> None:
    """Say more or less from here on, in the processes that this one starts as well."""
    if quiet and verbose:
        raise UserError("--quiet and --verbose", "exclude each other", cure="Give one of them")
    if quiet or verbose:
        os.environ[VERBOSITY] = "quiet" if quiet else "verbose"
    import logging

    if not is_verbose():  # whether this process was told so, or the one that started it
        # bitsandbytes 0.50 misses an optional package as soon as peft imports it, four bits or not.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    else:
        logging.basicConfig(format="%(name)s: %(message)s")
        logging.getLogger("embedtrain").setLevel(logging.INFO)


def audible(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options ``--quiet`` and ``--verbose``."""

    @wraps(command)
    def run(*args: Any, quiet: bool = False, verbose: bool = False, **settings: Any) -> None:  # noqa: ANN401
        choose_verbosity(quiet=quiet, verbose=verbose)
        command(*args, **settings)

    signature = inspect.signature(command)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
        for name, option in OPTIONS.items()
    ]
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]
    run.__annotations__ = command.__annotations__ | OPTIONS
    return run
