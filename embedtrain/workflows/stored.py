"""How vectors are stored where a command says ``trained``: as the model was trained for."""

from typing import Literal

from embedtrain.contract.late_contract import LateInteractionContract
from embedtrain.contract.stored import NAMES, StoredOutputs
from embedtrain.contract.texts import Contract
from embedtrain.errors import UserError
from embedtrain.models.encoder import TextEncoder
from embedtrain.progress import console
from embedtrain.types import Format

TRAINED: Literal["trained"] = "trained"


def stored_outputs(encoder: TextEncoder) -> StoredOutputs | None:
    """Return what a model's vectors were trained to be stored as; None for floats alone."""
    contract = encoder.contract
    return contract.outputs if isinstance(contract, Contract | LateInteractionContract) else None


def trained_format(flag: str, encoder: TextEncoder) -> Format:
    """Return the format that ``trained`` stands for, and say it.

    Raises:
        UserError: If the model was trained for none.
    """
    found = stored_outputs(encoder)
    if found is None:
        problem = "is for models that were trained or turned for it, which this one was not"
        cure = "Name a format: int8, binary or ternary"
        raise UserError(flag, problem, got=TRAINED, cure=cure)
    console.print(f"Stored as {NAMES[found.quantize[0]]}: made for {found.sentence()}")
    return found.quantize[0]


def named_index(words: str | None, encoder: TextEncoder) -> str | None:
    """Return the words of an index with the model's own format in place of ``trained``; None is for floats."""
    if words is None:
        tell_of_floats(encoder, "--index trained")
    return trained_format("--index", encoder) if words == TRAINED else words


def tell_of_floats(encoder: TextEncoder, flag: str) -> None:
    """Say of a model that was trained for less than floats that these are floats."""
    if (found := stored_outputs(encoder)) is not None:
        console.print(f"Stored as floats; the model was made for {found.sentence()}: {flag}")
