"""What the parts of an encoder share that stand beside its backbone: a file of weights of their own."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from embedtrain.errors import UserError
from embedtrain.models.backbone.files import read_weights, write_weights
from embedtrain.models.backbone.fit import compare, read_header, shapes_of
from embedtrain.outside import reading

Part = TypeVar("Part", bound="SavedPart")


class SavedPart(nn.Module):
    """A part of an encoder whose weights lie beside the backbone's. A subclass names the file."""

    weights_file: ClassVar[str]
    shared: ClassVar[tuple[str, ...]] = ()
    """How the names of weights begin that are the backbone's, and saved with it."""

    def save(self, folder: Path) -> None:
        """Write the part's own weights."""
        write_weights(folder / self.weights_file, self._own_weights())

    def load(self: Part, folder: Path) -> Part:
        """Read the weights back, where the folder has them; return the part itself.

        Raises:
            UserError: If they are another part's, or of another size.
        """
        path = folder / self.weights_file
        if path.is_file():
            found = read_weights(path)
            compare(path, shapes_of(self._own_weights()), shapes_of(found), exact=True)
            self.load_state_dict(found, strict=False)
        return self

    def refuse_other(self, folder: Path) -> None:
        """Compare sizes with those in the file's header.

        Raises:
            UserError: If the file is missing, or another part's.
        """
        path = folder / self.weights_file
        if not path.is_file():
            raise UserError(path, "is missing", cure="Copy the whole folder")
        stored = {name: one.shape for name, one in read_header(path).items()}
        compare(path, shapes_of(self._own_weights()), stored, exact=True)

    def _own_weights(self) -> dict[str, Tensor]:
        weights: dict[str, Tensor] = self.state_dict()
        return {k: value for k, value in weights.items() if not k.startswith(self.shared)}


def restored(make: Callable[[], Part], folder: Path, *, required: bool) -> Part:
    """Return the part that ``make`` makes, with the weights that the folder has of it.

    Args:
        make: Makes a fresh part.
        folder: Of the model.
        required: Whether the folder must have them: it says itself that its model has this part.

    Raises:
        UserError: As :meth:`SavedPart.load` does, before memory is taken for sizes that are wrong.
    """
    if required:
        with reading(folder, also=(RuntimeError,)), torch.device("meta"):
            make().refuse_other(folder)
    return make().load(folder)
