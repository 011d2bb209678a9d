"""The command line: which commands there are, under their headings. Heavy imports wait until one runs."""

import sys
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from embedtrain.cli.command import Command
from embedtrain.cli.ending import end
from embedtrain.cli.verbosity import QuietOption, VerboseOption, audible, choose_verbosity
from embedtrain.stopping import listening
from embedtrain.training.ranks.ties import live_with_parent

COMMANDS = {
    "Train": ("fit", "init", "train", "check", "tune", "adapt", "static"),
    "Data": ("synth", "tokenizer", "mine", "judge", "score"),
    "Search": ("search", "encode", "load"),
    "Evaluate": ("evaluate", "compare", "pareto", "report"),
    "Ship": (
        *("select", "export", "verify", "serve"),
        *("merge", "rotate", "calibrate", "prune-vocabulary", "prune-layers"),
    ),
    "Inspect": ("recipes", "doctor", "probe"),
}
"""The commands, each a module of this folder, in the order in which ``--help`` lists them."""


class InOrder(TyperGroup):
    """Lists commands in the order of their headings; typer would put those that have commands of their own first."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - as typer calls it
        super().__init__(**settings)
        names = [name for commands in COMMANDS.values() for name in commands]
        self.commands = {name: self.commands[name] for name in names}


app = typer.Typer(
    name="embedtrain",
    cls=InOrder,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Train embedding models for retrieval: exact, fast, one contract, simple.",
    epilog="Begin with: embedtrain init pairs.jsonl, or embedtrain train quickstart",
)
for _heading, _names in COMMANDS.items():
    for _name in _names:
        _python_name = _name.replace("-", "_")
        _module = import_module(f"embedtrain.cli.{_python_name}")
        _command = getattr(_module, _python_name)
        _epilog = "\n\n".join(("Examples:", *_module.EXAMPLES))
        if isinstance(_command, typer.Typer):
            app.add_typer(_command, name=_name, rich_help_panel=_heading, epilog=_epilog)
        else:
            app.command(_name, cls=Command, rich_help_panel=_heading, epilog=_epilog)(
                audible(_command)
            )


def _print_version(wanted: bool) -> bool:
    if wanted:
        from embedtrain import __version__

        typer.echo(f"embedtrain {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def every_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and end."
        ),
    ] = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Take the options that stand before a command."""
    del version  # its callback has done the work
    choose_verbosity(quiet=quiet, verbose=verbose)


def main() -> None:
    """Run the command line: exit 0 done, 2 the user's mistake, 3 done but nothing is good enough to ship, 1 anything else.

    At a signal: 130 for SIGINT, 143 for SIGTERM, 75 for SIGUSR1.
    """
    live_with_parent()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, TextIOWrapper
        ):  # ids and paths may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        with listening(owns_process=True):
            app(standalone_mode=True)
    except (Exception, KeyboardInterrupt) as error:
        sys.exit(end(error))


if __name__ == "__main__":
    main()
