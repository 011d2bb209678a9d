"""Workflow: vectors that some model gave, and pairs of them, become an adapter; no model is needed."""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from embedtrain.errors import UserError
from embedtrain.files import appearing_folder
from embedtrain.locks import owns
from embedtrain.models.backbone.files import linear_layer, refuse_tanh, write_projection
from embedtrain.models.build import load_encoder
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.dense.pair_head import refuse_interaction
from embedtrain.models.edits.adapters import VectorAdapter, save_adapters
from embedtrain.outside import reading
from embedtrain.release.export import write_model
from embedtrain.training.adapters.fit import AdaptConfig, train_adapters
from embedtrain.training.adapters.objective import AdapterData, Adapters

MODEL, DOCUMENT_MODEL = "model", "document_model"


@dataclass(frozen=True)
class AdapterFiles:
    """What an adapter is trained from: ``.npy`` files of vectors and a file of pairs of their rows."""

    documents: Path
    queries: Path | None = None
    pairs: Path | None = None


@owns("output")
def adapt(
    files: AdapterFiles, output: Path, config: AdaptConfig, model: str | None = None
) -> dict[str, float]:
    """Train an adapter and write it: plain arrays, Dense modules where it is linear, a model if one is named.

    Args:
        files: Vectors and pairs. Without pairs only the unsupervised Matryoshka-Adaptor can be trained.
        output: Folder to write; must not exist.
        config: What to train.
        model: The model that gave the vectors; ``model/`` in the output then gives the adapted ones.

    Returns:
        Reciprocal rank of held-out queries before and after.

    Raises:
        UserError: If files do not fit together, or a model is asked for that the adapter is no part of.
    """
    if output.exists():
        raise UserError("--output", "exists", got=str(output), cure="Choose another folder")
    data = read_data(files, config)
    encoder = None if model is None else _encoder(model, config, data.documents.shape[1])
    adapters, figures = train_adapters(data, config)
    with appearing_folder(output) as building:
        save_adapters(building, adapters, figures)
        for side, adapter in adapters.items():
            if (matrix := adapter.matrix) is not None:
                write_projection(building / f"dense_{side}", linear_layer(matrix))
        if encoder is not None:
            place = output.resolve() / DOCUMENT_MODEL
            _write_models(encoder, str(model), adapters, building, place, config)
    return figures


def read_data(files: AdapterFiles, config: AdaptConfig) -> AdapterData:
    """Read and check vectors and pairs.

    Raises:
        UserError: If they are not usable, naming the file.
    """
    documents = read_vectors(files.documents)
    queries = documents[:0] if files.queries is None else read_vectors(files.queries)
    if queries.shape[1] != documents.shape[1]:
        raise UserError(
            files.queries,
            f"has vectors of another dimension than the documents' {documents.shape[1]}",
            got=queries.shape[1],
            cure="Encode both with one model",
        )
    if max(config.dims, default=0) > documents.shape[1]:
        raise UserError("dims", "holds more than the vectors have", got=config.dims)
    pairs = np.zeros((0, 2), dtype=np.int64)
    if files.pairs is not None:
        pairs = read_pairs(files.pairs, len(queries), len(documents))
    elif not config.dims:
        raise UserError(
            "--pairs", "is missing", cure="Give it, or dims=[...] for an adapter without labels"
        )
    return AdapterData(
        F.normalize(torch.from_numpy(queries), dim=1),
        F.normalize(torch.from_numpy(documents), dim=1),
        pairs,
    )


def read_vectors(path: Path) -> NDArray[np.float32]:
    """Read a matrix of vectors from a ``.npy`` file."""
    with reading(path, cure="Give the .npy file of `embedtrain encode`"):
        vectors = np.load(path, allow_pickle=False)
        if not isinstance(vectors, np.ndarray):
            raise UserError(path, "is no .npy file", cure="Give one of `embedtrain encode`")
    if vectors.ndim != 2 or not len(vectors) or vectors.dtype.kind != "f":
        raise UserError(path, "must hold a vector per row", got=f"{vectors.dtype} {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise UserError(path, "holds numbers that are not finite", cure="Encode again")
    return np.asarray(vectors, dtype=np.float32)


def read_pairs(path: Path, num_queries: int, num_documents: int) -> NDArray[np.int64]:
    """Read a pair per line: row of the query, tab, row of a document that answers it, counted from 0."""
    pairs = []
    with reading(path):
        lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        cells = line.split("\t")
        if len(cells) != 2 or not all(cell.strip().isdecimal() for cell in cells):
            raise UserError(f"{path}:{number}", "must be two row numbers and a tab", got=line)
        with reading(f"{path}:{number}"):
            query, document = map(int, cells)
        if query >= num_queries or document >= num_documents:
            raise UserError(
                f"{path}:{number}",
                f"names a row beyond {num_queries} queries and {num_documents} documents",
                got=line,
                cure="Count rows from 0",
            )
        pairs.append((query, document))
    if len({query for query, _ in pairs}) < 2:
        raise UserError(path, "needs pairs of at least two queries: some are held out")
    return np.array(pairs, dtype=np.int64)


def _encoder(model: str, config: AdaptConfig, dim: int) -> DenseEncoder:
    """Load the model that is to give adapted vectors, and refuse what it cannot express."""
    encoder = load_encoder(model)
    refuse_interaction(encoder, "--model")
    if not isinstance(encoder, DenseEncoder) or encoder.words is not None:
        raise UserError("--model", "must have one plain vector per text", got=model)
    if encoder.dim != dim or encoder.contract.similarity != "cosine":
        raise UserError(
            "--model",
            f"must give normalised vectors of the {dim} dimensions in the files",
            got=f"{encoder.dim}, {encoder.contract.similarity}",
            cure="Name the model that encoded them",
        )
    if config.kind == "mlp" or (config.kind == "low_rank" and config.activation != "identity"):
        raise UserError(
            "--model",
            "can hold adapters that are one matrix",
            got=f"{config.kind}, {config.activation}",
            cure="Use kind=linear, or activation=identity, or leave --model out",
        )
    refuse_tanh(encoder.projection, "--model")
    if encoder.projection is not None and encoder.projection.bias is not None:
        raise UserError("--model", "has a projection with a bias, which an adapter cannot follow")
    return encoder


def _write_models(
    encoder: DenseEncoder,
    base: str,
    adapters: Adapters,
    building: Path,
    place: Path,
    config: AdaptConfig,
) -> None:
    """Write the model of queries, and that of documents where it is another, which will lie at ``place``."""
    query = _with_adapter(encoder, adapters["query"])
    if config.sides == "separate":
        documents = _with_adapter(encoder, adapters["document"])
        write_model(documents, building / DOCUMENT_MODEL)
        base = str(place)
    if config.sides != "shared":
        named = str(Path(base).resolve()) if Path(base).is_dir() else base
        query.contract = query.contract.model_copy(update={"document_model": named})
    write_model(query, building / MODEL)


def _with_adapter(encoder: DenseEncoder, adapter: VectorAdapter) -> DenseEncoder:
    """Return the encoder with the adapter's matrix behind it.

    The encoder normalises before the adapter sees a vector, and here only after: a matrix without a bias gives
    the same direction.
    """
    matrix = adapter.matrix
    assert matrix is not None
    changed = copy.deepcopy(encoder)
    if changed.projection is not None:
        matrix = matrix @ changed.projection.weight.detach().cpu()
    changed.projection = linear_layer(matrix).to(encoder.device)
    changed.contract = encoder.contract.model_copy(update={"outputs": None})
    return changed
