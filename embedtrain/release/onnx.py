"""Workflow: a model folder gets a graph for onnxruntime, checked against torch before it stays."""

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import load_encoder
from embedtrain.models.encoder import TextEncoder
from embedtrain.release.export import PROBES
from embedtrain.release.onnx_graph import OnnxEncoder, save_onnx
from embedtrain.types import Side, TokenVectors

MAX_DIFFERENCE = 1e-4
MIN_COSINE = 0.9999


def export_onnx(folder: Path) -> Path:
    """Write ``onnx/embedding.onnx`` into a model folder: ids and mask in, finished vectors out.

    Raises:
        UserError: If the extra is missing, the model has no graph, or onnxruntime gives other vectors.
    """
    model = load_encoder(str(folder))
    model.to("cpu")
    path = folder / "onnx"
    shutil.rmtree(path, ignore_errors=True)
    try:
        written = save_onnx(model, folder)
        check_onnx(model, written)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return written


def check_onnx(model: TextEncoder, path: Path) -> float:
    """Compare a graph with its model on texts of very different lengths, together and one by one.

    Returns:
        The largest difference of a coordinate, relative to the largest coordinate where that exceeds 1.
    """
    graph, largest = OnnxEncoder(model, path), 0.0
    sides: tuple[Side, ...] = ("query", "document")
    for side in sides:
        ours = _by_text(encode_texts(model, PROBES, side))
        alone = [graph([text], side)[0] for text in PROBES]
        for theirs in (graph(PROBES, side), alone):
            for one, other in zip(ours, theirs, strict=True):
                largest = max(largest, _compare(one, other, path, side))
    return largest


def _by_text(vectors: NDArray[np.float32] | TokenVectors) -> list[NDArray[np.float32]]:
    if isinstance(vectors, TokenVectors):
        return np.split(vectors.values, np.cumsum(vectors.lengths)[:-1])
    return [row[None] for row in vectors]


def _compare(ours: np.ndarray, theirs: np.ndarray, path: Path, side: Side) -> float:
    if ours.shape != theirs.shape:
        raise _other_vectors(path, side, f"shape {theirs.shape}, not {ours.shape}")
    difference = float(np.abs(ours - theirs).max()) / max(1.0, float(np.abs(ours).max()))
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosine = float(((ours * theirs).sum(axis=1)[norms > 0] / norms[norms > 0]).min(initial=1.0))
    if not (difference <= MAX_DIFFERENCE and cosine >= MIN_COSINE):
        raise _other_vectors(path, side, f"difference {difference:.2e}, cosine {cosine:.6f}")
    return difference


def _other_vectors(path: Path, side: Side, found: str) -> UserError:
    return UserError(
        path, f"gives other {side} vectors than torch", got=found, cure="Please report this"
    )
