"""Sparse codes over a dense model: from its folder to an encoder, and back to a folder."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from embedtrain.contract.sparse_contract import Code, SparseContract
from embedtrain.contract.texts import Contract, Pooling
from embedtrain.errors import UserError
from embedtrain.files import write_json
from embedtrain.models.backbone.fetching import read_modules, static_folder
from embedtrain.models.backbone.files import read_weights, write_modules, write_weights
from embedtrain.models.backbone.fit import WEIGHTS, compare, shapes_of
from embedtrain.models.backbone.loading import Backbone, ensure_end_token, load_backbone
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.echo import refuse_no_room
from embedtrain.models.dense.layout import (
    Layout,
    finish_modules,
    read_layout,
    read_vector_modules,
    write_pooling,
)
from embedtrain.models.dense.resolving import resolve_contract
from embedtrain.models.saved_part import restored
from embedtrain.models.sparse.code_head import CodeHead
from embedtrain.models.sparse.config import SparseConfig
from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.models.sparse.layout import CODE, MODULES, SparseLayout, is_sparse
from embedtrain.models.sparse.resolving import resolve_sparse_contract

TRAINING = {"k_aux": 512, "normalize": False, "dead_threshold": 30}
"""What sentence-transformers wants to know besides, for its own training."""


@dataclass(frozen=True)
class DenseVectors:
    """How a dense model makes a vector of token states, and what its contract says of texts."""

    pooling: Pooling
    projection: nn.Linear | None
    normalized: bool
    texts: dict[str, Any]


def build_code(
    config: SparseConfig, layout: SparseLayout, folder: Path, place: Path
) -> SparseEncoder:
    """Put a code on top of a dense model, with the folder's dictionary where it has one.

    Raises:
        UserError: If the model makes its vectors in a way that a code cannot stand on.
    """
    if static_folder(folder) is not None:
        raise UserError(config.backbone, "is a table of words, which no code can stand on")
    backbone = load_backbone(str(place), config)
    is_new = not is_sparse(folder)
    vectors = _read_vectors(folder, backbone) if is_new else _stored_vectors(place)
    if is_new:
        layout = SparseLayout(settings=vectors.texts)
    contract = resolve_sparse_contract(config, layout, backbone, 0, is_new=is_new)
    contract = contract.model_copy(update={"code": contract.code or Code()})
    refuse_no_room(contract, backbone)
    if vectors.pooling == "last_token":
        ensure_end_token(backbone.tokenizer)
    head = _build_head(contract, vectors, backbone.width, folder, is_new=is_new)
    if config.freeze_backbone or (config.freeze_backbone is None and config.lora is None):
        backbone.model.requires_grad_(False)
        if head.projection is not None:
            head.projection.requires_grad_(False)
    return SparseEncoder(
        backbone, contract, head,
        packing=config.packing, learn_temperature=config.learn_temperature,
    )  # fmt: skip


def _read_vectors(folder: Path, backbone: Backbone) -> DenseVectors:
    layout = read_layout(folder)
    contract = resolve_contract(DenseConfig(backbone=str(folder)), layout, backbone)
    _refuse_parts(folder, layout, contract)
    names = ("query_prompt", "document_prompt", "query_length", "document_length", "long_inputs")
    texts = {name: getattr(contract, name) for name in names}
    normalized = contract.similarity == "cosine"
    # Which tokens are pooled is the dense model's own matter.
    texts |= {"pooled_tokens": "all"}
    return DenseVectors(contract.pooling, layout.projection, normalized, texts)


def _refuse_parts(folder: Path, layout: Layout, contract: Contract) -> None:
    own = {
        name: getattr(contract, name)
        for name in ("echo", "prepend", "spans", "document_model", "framing")
    }
    found = [*layout.parts, *(name for name, value in own.items() if value)]
    if found:
        raise UserError(
            folder, "makes its vectors in a way that a code cannot stand on", got=", ".join(found),
            cure="Use a model whose vectors are pooled states, projected and normalised at most",
        )  # fmt: skip


def _stored_vectors(place: Path) -> DenseVectors:
    pooling, projection, normalized = read_vector_modules(place, beside=(CODE,))
    return DenseVectors(pooling or "mean", projection, normalized, {})


def _build_head(
    contract: SparseContract, vectors: DenseVectors, width: int, folder: Path, *, is_new: bool
) -> CodeHead:
    assert contract.code is not None
    projection = vectors.projection
    if projection is not None and projection.in_features != width:
        raise UserError(
            folder, f"has a projection for another width than its backbone's {width}",
            got=projection.in_features, cure="Take both from one place",
        )  # fmt: skip
    make = partial(
        CodeHead, width, contract.code, vectors.pooling, projection, normalized=vectors.normalized
    )
    modules = {name.rsplit(".", 1)[-1]: place for name, place in read_modules(folder)}
    if CODE not in modules:
        return restored(make, folder, required=not is_new)
    head, path = make(), modules[CODE] / WEIGHTS
    found = read_weights(path, whole=("stats_last_nonzero",))
    found = {name.replace("decoder.linear.", "encoder."): one for name, one in found.items()}
    compare(path, shapes_of(head.theirs()), shapes_of(found))
    head.take(found)
    return head


def save_code(model: SparseEncoder, folder: Path, place: Path) -> None:
    """Write what stands on the backbone, which lies in ``place``: there the dense model is whole."""
    head, contract = model.head, model.contract
    assert isinstance(head, CodeHead)
    width, length = (
        model.backbone.config.hidden_size,
        max(contract.query_length, contract.document_length),
    )
    first = write_pooling(place, head.pooling, width, length)
    modules = finish_modules(place, first, head.projection, normalized=head.normalized)
    if place != folder:
        write_modules(place, modules)
        head.save(folder)
        return
    name = f"{len(modules)}_{CODE}"
    write_modules(folder, modules | {name: f"{MODULES}.{CODE}"})
    entries, dim = head.dictionary.shape
    sizes = {"input_dim": dim, "hidden_dim": entries, "k": head.config.kept}
    write_json(folder / name / "config.json", sizes | TRAINING)
    write_weights(folder / name / WEIGHTS, head.theirs())
