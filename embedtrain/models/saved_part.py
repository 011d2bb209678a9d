"""What the parts of an encoder share that stand beside its backbone: a file of weights of their own."""

from pathlib import Path
from typing import ClassVar, TypeVar

from torch import Tensor, nn

from embedtrain.errors import UserError
from embedtrain.models.backbone.files import read_weights, write_weights

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
        if not path.is_file():
            return self
        found = read_weights(path)
        sizes, wanted = (
            {name: tuple(value.shape) for name, value in weights.items()}
            for weights in (found, self._own_weights())
        )
        if sizes != wanted:
            odd = sorted(name for name in {*sizes, *wanted} if sizes.get(name) != wanted.get(name))
            raise UserError(path, "does not fit the model", got=odd, cure="Copy the whole folder")
        self.load_state_dict(found, strict=False)
        return self

    def _own_weights(self) -> dict[str, Tensor]:
        weights: dict[str, Tensor] = self.state_dict()
        return {k: value for k, value in weights.items() if not k.startswith(self.shared)}
