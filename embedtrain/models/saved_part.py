"""What the parts of an encoder share that stand beside its backbone: a file of weights of their own."""

from pathlib import Path
from typing import ClassVar

from safetensors.torch import save_file
from torch import nn

from embedtrain.errors import UserError
from embedtrain.models.backbone.files import read_weights


class SavedPart(nn.Module):
    """A part of an encoder whose weights lie beside the backbone's. A subclass names the file."""

    weights_file: ClassVar[str]
    shared: ClassVar[tuple[str, ...]] = ()
    """How the names of weights begin that are the backbone's, and saved with it."""

    def save(self, folder: Path) -> None:
        """Write the part's own weights."""
        weights = {
            name: value.contiguous()
            for name, value in self.state_dict().items()
            if not name.startswith(self.shared)
        }
        save_file(weights, folder / self.weights_file, metadata={"format": "pt"})

    def load(self, folder: Path) -> None:
        """Read the weights back, where the folder has them.

        Raises:
            UserError: If they are another part's, or of another size.
        """
        path = folder / self.weights_file
        if not path.is_file():
            return
        found, own = read_weights(path), self.state_dict()
        sizes = {name: tuple(value.shape) for name, value in found.items()}
        wanted = {
            name: tuple(value.shape)
            for name, value in own.items()
            if not name.startswith(self.shared)
        }
        if sizes != wanted:
            odd = sorted(name for name in {*sizes, *wanted} if sizes.get(name) != wanted.get(name))
            raise UserError(path, "does not fit the model", got=odd, cure="Copy the whole folder")
        self.load_state_dict(found, strict=False)
