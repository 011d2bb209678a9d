"""What a shadow device asks of each operation: its schema, and the tensors in what it is given and returns."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch


@dataclass(frozen=True)
class Schema:
    """What an operation's schema says; asked of it each time, it would be most of a step's time."""

    name: str
    returns_view: bool
    returns_written: bool
    """Whether all that it returns is what it has written to."""
    num_returns: int
    written: tuple[tuple[int, str], ...]
    """Place and name of each argument that it writes to; a place of -1 can only be named."""

    def written_by(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """Return the arguments that the operation writes to."""
        return [
            kwargs.get(name, args[place] if 0 <= place < len(args) else None)
            for place, name in self.written
        ]


@cache
def schema_of(func: Any) -> Schema:
    """Read an operation's schema."""
    returns, arguments = func._schema.returns, func._schema.arguments
    return Schema(
        name=func._schema.name.partition("::")[2],
        returns_view=any(one.alias_info is not None for one in returns),
        returns_written=bool(returns) and all(map(_is_written, returns)),
        num_returns=len(returns),
        written=tuple(
            (-1 if one.kwarg_only else place, one.name)
            for place, one in enumerate(arguments)
            if _is_written(one)
        ),
    )


def _is_written(declared: Any) -> bool:
    return declared.alias_info is not None and declared.alias_info.is_write


def change_tensors(change: Callable[[Any], Any], value: Any) -> Any:
    """Change each tensor in the arguments or results of an operation, which nest little: torch's trees take longer."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, tuple | list):
        return type(value)([change_tensors(change, one) for one in value])
    return value
