"""Let a loaded encoder take longer texts than it was trained on."""

from embedtrain.contract.long_inputs import LongInputs
from embedtrain.contract.texts import Contract
from embedtrain.errors import UserError
from embedtrain.models.backbone.long_positions import lengthen
from embedtrain.models.encoder import TextEncoder


def lengthen_encoder(model: TextEncoder, wish: LongInputs | None) -> TextEncoder:
    """Change an encoder so that its documents may have ``wish.length`` tokens; None changes nothing.

    Raises:
        UserError: If its backbone cannot be lengthened so, or its documents belong to another model.
    """
    if wish is None:
        return model
    if isinstance(model.contract, Contract) and model.contract.document_model:
        raise UserError(
            "--long-inputs",
            "is of documents, which another model encodes here",
            got=model.contract.document_model,
            cure="Lengthen that model",
        )
    model.contract = lengthen(model.backbone, model.contract, wish, "--long-inputs")
    model.read_long_inputs()
    return model


def lengthen_weights(model: TextEncoder, wish: LongInputs | None) -> None:
    """Change weights and config of an encoder so that every reader of them has the longer positions.

    Texts within the window get other positions too, but for the method recurrent.

    Raises:
        UserError: If no weights or config can express it.
    """
    if wish is None:
        return
    if wish.method == "self_extend":
        raise UserError(
            "--long-inputs",
            "cannot be written as plain files, which have one position for a token",
            got=wish.method,
            cure="Use ntk or interpolated, or give it to evaluate, encode and search",
        )
    written = wish if wish.in_weights else wish.model_copy(update={"keep_short": False})
    lengthen_encoder(model, written)
