"""Cut a trained model down: fewer layers, fewer dimensions, the same numbers."""

import torch
from torch import nn

from embedtrain.errors import UserError
from embedtrain.models.backbone.families import is_whole
from embedtrain.models.backbone.files import linear_layer
from embedtrain.models.backbone.word_table import WordTable
from embedtrain.models.cross_encoder.encoder import CrossEncoderModel
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.exits import keep_layers


def shrink(model: TextEncoder, *, layer: int | None = None, dim: int | None = None) -> DenseEncoder:
    """Turn a dense encoder into the one that ends at ``layer`` and keeps the first ``dim`` dimensions.

    Its vectors are those that training with ``model.exits`` and Matryoshka compared: pooled states of that
    layer through the exit's own projection where it has one, cut, then normalised where the similarity is
    cosine. Changes the model it is given. Layers count from 1; None keeps all.

    Raises:
        UserError: If the model has no such layer or dimension, or is not one of one vector per text.
    """
    if not isinstance(model, DenseEncoder) or not model.is_portable:
        raise UserError(
            "--layer and --dim",
            "cut models with one plain vector per text only",
            cure="Leave them out",
        )
    _check_layer(layer, model.num_layers)
    if dim is not None and not 1 <= dim <= model.dim:
        raise UserError(
            "--dim", f"is not between 1 and the model's {model.dim} dimensions", got=dim
        )
    if layer is not None and layer < model.num_layers:
        _end_at(model, layer)
    model.exits = None
    if dim is not None and dim < model.dim:
        model.truncate_dim = dim
        if (stored := model.contract.outputs) is not None:
            kept = {"outputs": stored.first_dimensions(dim)}
            model.contract = model.contract.model_copy(update=kept)
        if isinstance(model.backbone, WordTable) and model.projection is None:
            model.backbone = model.backbone.first_columns(dim)
        else:
            model.projection = _first_rows(model, dim)
    return model


def shrink_reranker(model: CrossEncoderModel, layer: int) -> CrossEncoderModel:
    """Turn a cross-encoder into the one that ends at ``layer``, under the same head. Changes the model it is given.

    Its scores are those that training with ``model.exits`` compared.

    Raises:
        UserError: If the model has no such layer, or a decoder.
    """
    if is_whole(model.backbone.config):
        raise UserError("--layer", "is of models without a decoder", cure="Leave it out")
    _check_layer(layer, int(model.backbone.config.num_hidden_layers))
    keep_layers(model.backbone, range(layer))
    model.exits = ()
    return model


def _check_layer(layer: int | None, total: int) -> None:
    if layer is not None and not 1 <= layer <= total:
        raise UserError(
            "--layer", f"is not one of the model's {total} layers", got=layer, cure="Count from 1"
        )


def _end_at(model: DenseEncoder, layer: int) -> None:
    exits = model.exits
    if exits is not None and exits.heads:
        head = exits.head(layer)
        if head is None:
            raise UserError(
                "--layer", "is not one of the exits", got=layer, cure=f"Choose from {exits.layers}"
            )
        model.projection = head
    if exits is None or layer not in exits.layers:  # its vectors were never made for fewer bits
        model.contract = model.contract.model_copy(update={"outputs": None})
    keep_layers(model.backbone, range(layer))


def _first_rows(model: DenseEncoder, dim: int) -> nn.Linear:
    """Return a projection that gives the first ``dim`` dimensions of what the model's gives."""
    old, width = model.projection, int(model.backbone.config.hidden_size)
    weight = torch.eye(dim, width, device=model.device) if old is None else old.weight[:dim]
    bias = None if old is None or old.bias is None else old.bias[:dim]
    return linear_layer(weight, bias, nn.Linear if old is None else type(old))
