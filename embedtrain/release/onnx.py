"""Workflow: a model folder gets a graph for onnxruntime, checked against torch before it stays."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.files import appearing_folder, write_file
from embedtrain.locks import owns
from embedtrain.models.build import load_model
from embedtrain.models.cross_encoder.encoder import CrossEncoderModel
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.models.text_model import TextModel
from embedtrain.release.cards.graphs import card_with_graph
from embedtrain.release.export import PROBES, card_of, difference, largest_difference
from embedtrain.release.onnx_graph import OnnxEncoder, OnnxScorer, graph_file, save_onnx
from embedtrain.release.pair_scores import values_of
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import Side, TokenVectors

MAX_DIFFERENCE = 1e-4
MIN_COSINE = 0.9999


@owns("folder")
def export_onnx(folder: Path) -> Path:
    """Write a graph into a model folder, and into its card how to run it: ids and mask in, vectors or scores out.

    Raises:
        UserError: If the extra is missing, the model has no graph, or onnxruntime gives other numbers.
    """
    model = load_model(str(folder))
    if isinstance(model, SparseEncoder):
        raise UserError(folder, "is a sparse model, which has no graph", cure="Leave --onnx out")
    model.to("cpu")
    path = folder / graph_file(model)
    with appearing_folder(path.parent) as building:
        save_onnx(model, building / path.name)
        check_onnx(model, building / path.name)
    card = card_of(folder)
    if card is not None:
        write_file(folder / "README.md", card_with_graph(card, model, graph_file(model)))
    return path


def check_onnx(model: TextModel, path: Path) -> float:
    """Compare a graph with its model on texts of very different lengths, together and one by one.

    Returns:
        The largest difference of a coordinate or score, relative to the largest one where that exceeds 1.
    """
    if isinstance(model, CrossEncoderModel):
        return _check_scores(model, path)
    assert isinstance(model, TextEncoder)
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


def _check_scores(model: CrossEncoderModel, path: Path) -> float:
    graph, pairs = OnnxScorer(model, path), [(one, other) for one in PROBES for other in PROBES]
    ours = values_of(model, pairs)
    alone = np.concatenate([graph([pair]) for pair in pairs])
    largest = max(largest_difference(ours, theirs) for theirs in (graph(pairs), alone))
    if not largest <= MAX_DIFFERENCE:  # NaN is not
        raise UserError(
            path, "gives other scores than torch", got=largest, cure="Please report this"
        )
    return largest


def _by_text(
    vectors: NDArray[np.float32] | TokenVectors | SparseVectors,
) -> list[NDArray[np.float32]]:
    if isinstance(vectors, SparseVectors):
        vectors = vectors.dense()
    if isinstance(vectors, TokenVectors):
        return np.split(vectors.values, np.cumsum(vectors.lengths)[:-1])
    return [row[None] for row in vectors]
