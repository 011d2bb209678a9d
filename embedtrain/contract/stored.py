"""How vectors are to be stored: what the model was trained or turned for, kept beside its weights."""

from typing import Literal

from pydantic import Field

from embedtrain.section import Count, Section
from embedtrain.types import Format

NAMES: dict[Format, str] = {"int8": "bytes", "binary": "bits", "ternary": "three levels"}


class StoredOutputs(Section):
    """What a model's vectors are meant to be stored as. The model itself gives floats; commands quantise where asked."""

    quantize: tuple[Format, ...] = Field(min_length=1)
    """Formats, the first of which ``--quantize trained`` takes."""
    dims: tuple[Count, ...] = Field(min_length=1)
    """Sizes, the whole one first: vectors are cut, normalised again, and then quantised."""
    scoring: Literal["asymmetric", "symmetric", "both"] = "asymmetric"
    """Whether queries stay floats; ``both`` suits candidates by Hamming distance too."""

    def sentence(self) -> str:
        """Return in words what the vectors are for."""
        formats = " and ".join(NAMES[one] for one in self.quantize)
        return f"{formats} of {', '.join(map(str, self.dims))} dimensions"

    def first_dimensions(self, kept: int) -> "StoredOutputs | None":
        """Return what still holds of vectors that were cut to ``kept`` dimensions; None for nothing."""
        dims = tuple(one for one in self.dims if one <= kept)
        return self.model_copy(update={"dims": dims}) if kept in dims else None
