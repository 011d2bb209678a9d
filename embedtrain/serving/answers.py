"""Vectors as answers hold them: cut, quantised, as lists or as base64."""

import base64
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import orjson
from jaxtyping import Float32, Shaped
from numpy.typing import NDArray
from starlette.responses import Response

from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.retrieval.compression import pack_codes
from embedtrain.serving.refusals import Refusal
from embedtrain.serving.served import ServedEncoder

BYTES_OF_A_NUMBER = 16
"""Of an answer, at most: a float32 as text has up to 15 characters."""


def answer(content: object) -> Response:
    """Return content as JSON; numbers of arrays are written as they are."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json")


def stacked(results: Sequence[NDArray[np.float32]]) -> Float32[np.ndarray, "texts dim"]:
    """Return the vectors of a request as one array."""
    return np.stack(results)


def check_dimensions(
    model: ServedEncoder, wanted: int | None, allowed: Sequence[int] | Literal["any"]
) -> None:
    """Refuse a cut that the model cannot bear.

    Raises:
        Refusal: If there are fewer dimensions, or it was not trained for so few.
    """
    dim = model.model.dim
    if (
        wanted is None
        or wanted == dim
        or (wanted < dim and (allowed == "any" or wanted in allowed))
    ):
        return
    problem = f"the vectors have {dim} dimensions"
    if wanted < dim:
        known = ", ".join(map(str, (dim, *allowed)))
        problem = f"this server cuts vectors to no such size; it has: {known}"
    raise Refusal("validation", f"dimensions: {problem}", param="dimensions")


def cut(
    vectors: Float32[np.ndarray, "texts dim"], dim: int | None, *, normalized: bool
) -> Float32[np.ndarray, "texts kept"]:
    """Keep the first dimensions, of length 1 again where they were."""
    if dim is None or dim == vectors.shape[1]:
        return vectors
    return unit(vectors[:, :dim]) if normalized else np.ascontiguousarray(vectors[:, :dim])


def unit(vectors: Float32[np.ndarray, "texts dim"]) -> Float32[np.ndarray, "texts dim"]:
    """Return vectors of length 1; those of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Float32[np.ndarray, "texts dim"] = vectors / lengths.clip(min=np.finfo(np.float32).tiny)
    return found


def quantized(
    vectors: Float32[np.ndarray, "texts dim"], form: Literal["float", "int8", "binary"]
) -> Shaped[np.ndarray, "texts kept"]:
    """Return vectors as numbers, as bytes that stand for c / 127 of a unit vector, or as bits in bytes."""
    return vectors if form == "float" else pack_codes(unit(vectors), form)


def written(
    vectors: Shaped[np.ndarray, "texts dim"], form: Literal["float", "base64"]
) -> list[Any]:
    """Return what stands in the answer for each vector."""
    if form == "float":
        return list(vectors)
    return [
        base64.b64encode(row.astype(row.dtype.newbyteorder("<")).tobytes()).decode()
        for row in vectors
    ]


def is_normalized(model: ServedEncoder) -> bool:
    """Whether a model's vectors have length 1."""
    return isinstance(model.model, DenseEncoder) and model.model.contract.similarity == "cosine"
