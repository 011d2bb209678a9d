"""The projections of earlier layers beside a model, which other readers pass over: they use the last layer."""

from pathlib import Path

from torch import nn

from embedtrain.models.exits import Exits
from embedtrain.models.layout import read_projection, write_projection

EXIT_HEADS = "exit_heads"


def write_exit_heads(folder: Path, exits: Exits) -> None:
    """Write the projections of the exits that have one of their own."""
    for layer in exits.layers:
        if (head := exits.head(layer)) is not None:
            write_projection(folder / EXIT_HEADS / str(layer), head)


def read_exit_heads(folder: Path) -> dict[int, nn.Linear]:
    """Return the projections that a folder has, by layer; none for most folders."""
    places = sorted((folder / EXIT_HEADS).glob("[0-9]*"), key=lambda place: int(place.name))
    return {int(place.name): read_projection(place) for place in places}
