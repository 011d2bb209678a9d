"""The page about the command line, made from the commands themselves."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer

from embedtrain.cli.main import app

Command = Any
Parameter = Any  # typer has its own copy of click since 0.27, so neither class has a public name


@cache
def command_line() -> Command:
    """Return the root command, as the installed program runs it."""
    return typer.main.get_command(app)


def cli_page() -> str:
    """Return the page: every command with its arguments, options and examples."""
    root = command_line()
    parts = ["# Commands", _clean(root.help), _parameters(root)]
    heading = ""
    for command in _in_order(root):
        if _panel(command) != heading:
            heading = _panel(command)
            parts.append(f"## {heading}")
        parts.append(_command(command, f"embedtrain {command.name}"))
    return "\n\n".join(part for part in parts if part) + "\n"


def examples_of(command: Command) -> list[str]:
    """Return the command lines that ``--help`` shows as examples."""
    _, _, text = (getattr(command, "epilog", None) or "").partition(":")
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]


def _in_order(root: Command) -> Iterator[Command]:
    """Yield the commands as ``--help`` lists them: by heading, in the order of their first command."""
    commands = [command for command in root.commands.values() if not command.hidden]
    panels = list(dict.fromkeys(_panel(command) for command in commands))
    for panel in panels:
        yield from (command for command in commands if _panel(command) == panel)


def _panel(command: Command) -> str:
    panel = getattr(command, "rich_help_panel", None)
    return panel if isinstance(panel, str) else ""


def _command(command: Command, name: str) -> str:
    arguments = [_metavar(p) for p in command.params if p.param_type_name == "argument"]
    usage = " ".join([name, "[OPTIONS]", *arguments])
    parts = [f"### `{name}`", _clean(command.help), f"```text\n{usage}\n```", _parameters(command)]
    examples = "\n".join(examples_of(command))
    if examples:
        parts.append(f"```bash\n{examples}\n```")
    inner = getattr(command, "commands", {})
    parts += [_command(child, f"{name} {child.name}") for child in inner.values()]
    return "\n\n".join(part for part in parts if part)


def _parameters(command: Command) -> str:
    """Return the table of a command's arguments and options."""
    kinds = get_type_hints(command.callback) if command.callback else {}
    rows = []
    for parameter in command.params:
        if getattr(parameter, "hidden", False):
            continue
        names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
        if parameter.param_type_name == "argument":
            names = f"`{_metavar(parameter)}`"
        values = _values(kinds.get(parameter.name or "", bool))
        rows.append(f"| {names} | {values} | {_default(parameter)} | {_cell(parameter)} |")
    if not rows:
        return ""
    return "\n".join(["| Name | Values | Default | Meaning |", "|---|---|---|---|", *rows])


def _metavar(parameter: Parameter) -> str:
    name = parameter.metavar or (parameter.name or "").upper()
    name = f"{name}..." if parameter.nargs == -1 else name
    return name if parameter.required else f"[{name}]"


def _values(kind: object) -> str:
    """Say in words what a parameter of this type takes; a switch takes nothing."""
    inner = [part for part in get_args(kind) if part is not NoneType]
    if get_origin(kind) is Literal:
        return " or ".join(f"`{choice}`" for choice in inner)
    if get_origin(kind) is list:
        return f"{_values(inner[0])}, several times"
    if inner:
        return _values(inner[0])
    names = {str: "text", int: "whole number", float: "number", Path: "path", bool: ""}
    return names[kind]  # type: ignore[index]


def _default(parameter: Parameter) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    if isinstance(value, bool):
        return "on" if value else ""
    return f"`{value}`" if isinstance(value, str | int | float | Path) else ""


def _clean(text: str | None) -> str:
    return (text or "").replace("\f", "").strip()


def _cell(parameter: Parameter) -> str:
    return " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|")
