"""How documents of an evaluation are stored, once the model is known."""

from dataclasses import replace
from typing import TYPE_CHECKING

from embedtrain.models.encoder import TextEncoder
from embedtrain.workflows.stored import TRAINED, tell_of_floats, trained_format

if TYPE_CHECKING:
    from embedtrain.workflows.evaluate.tasks import Wish


def settled(wish: "Wish", encoder: TextEncoder, *, searches: bool) -> "Wish":
    """Return the wish with the model's own format in place of ``trained``.

    Where documents are searched as floats though the model was made for less, it is said.

    Raises:
        UserError: If the model was trained for none.
    """
    if wish.compression.quantize == TRAINED:
        own = {"quantize": trained_format("--quantize", encoder)}
        return replace(wish, compression=wish.compression.model_copy(update=own))
    if wish.index == TRAINED:
        return replace(wish, index=trained_format("--index", encoder))
    if searches and wish.compression.quantize is None and wish.index is None:
        tell_of_floats(encoder, "--quantize trained")
    return wish
