"""Workflow: a model folder gets a graph for onnxruntime, checked against torch before it stays."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.files import appearing_folder
from embedtrain.locks import owns
from embedtrain.models.build import load_encoder
from embedtrain.models.encoder import TextEncoder
from embedtrain.release.export import PROBES, difference, largest_difference
from embedtrain.release.onnx_graph import FILE, OnnxEncoder, save_onnx
from embedtrain.types import Side, TokenVectors

MAX_DIFFERENCE = 1e-4
MIN_COSINE = 0.9999


@owns("folder")
def export_onnx(folder: Path) -> Path:
    """Write ``onnx/embedding.onnx`` into a model folder: ids and mask in, finished vectors out.

    Raises:
        UserError: If the extra is missing, the model has no graph, or onnxruntime gives other vectors.
    """
    model = load_encoder(str(folder))
    model.to("cpu")
    path = folder / FILE
    with appearing_folder(path.parent) as building:
        save_onnx(model, building / path.name)
        check_onnx(model, building / path.name)
    return path


def check_onnx(model: TextEncoder, path: Path) -> float:
    """Compare a graph with its model on texts of very different lengths, together and one by one.

    Returns:
        The largest difference of a coordinate, relative to the largest coordinate where that exceeds 1.
    """
    graph, largest = OnnxEncoder(model, path), 0.0
    sides: tuple[Side, ...] = ("query", "document")
    for side in sides:
        ours = _by_text(encode_texts(model, PROBES, side, precision="fp32"))
        alone = [graph([text], side)[0] for text in PROBES]
        for theirs in (graph(PROBES, side), alone):
            for one, other in zip(ours, theirs, strict=True):
                if found := difference(one, other, MAX_DIFFERENCE, MIN_COSINE):
                    raise UserError(
                        path,
                        f"gives other {side} vectors than torch",
                        got=found,
                        cure="Please report this",
                    )
                largest = max(largest, largest_difference(one, other))
    return largest


def _by_text(vectors: NDArray[np.float32] | TokenVectors) -> list[NDArray[np.float32]]:
    if isinstance(vectors, TokenVectors):
        return np.split(vectors.values, np.cumsum(vectors.lengths)[:-1])
    return [row[None] for row in vectors]
