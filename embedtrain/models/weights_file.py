"""Reads safetensors files; one that is cut off or something else is the user's mistake, said in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from embedtrain.errors import UserError


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a file.

    Raises:
        UserError: If it is no whole safetensors file.
    """
    with readable_weights(path):
        weights: dict[str, Tensor] = load_file(path)
    return weights


@contextmanager
def readable_weights(path: Path) -> Iterator[None]:
    """Turn what safetensors raises for a broken file into one line."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UserError(
            path,
            "is no whole safetensors file",
            got=str(error),
            cure="Copy or download it again",
        ) from error
