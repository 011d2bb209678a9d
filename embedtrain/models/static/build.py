"""Static word embeddings as a dense encoder: built from a folder or a table, saved for sentence-transformers."""

from dataclasses import replace
from pathlib import Path

from embedtrain.errors import UserError
from embedtrain.models.backbone.loading import Backbone
from embedtrain.models.backbone.word_table import WordTable, load_table, save_table
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.dense.layout import Layout, read_layout, write_layout
from embedtrain.models.dense.parts import dense_encoder
from embedtrain.models.dense.resolving import resolve_contract

TABLE_FOLDER = "0_StaticEmbedding"
UNLIMITED = 1_000_000
"""Tokens of a text: what a contract says where there are no positions to run out of."""
OFFERED = frozenset(
    (
        *("kind", "backbone", "pooling", "similarity", "query", "document", "instructions"),
        *("projection", "projection_activation", "learn_temperature", "pair_classes", "packing"),
    )
)
"""Fields of a recipe's model that a table has a use for; a table packs nothing, so packing is as it is."""


def build_static(config: DenseConfig) -> DenseEncoder:
    """Build the encoder of a ``StaticEmbedding`` folder.

    Texts are read whole: other readers of a table know no length.

    Raises:
        UserError: If the recipe asks for what only a transformer has.
    """
    _refuse_transformers_fields(config)
    backbone = load_table(config.backbone)
    return static_encoder(backbone, config, read_layout(backbone.folder))


def static_encoder(
    backbone: Backbone, config: DenseConfig, layout: Layout | None = None
) -> DenseEncoder:
    """Put an encoder around a table: mean of rows, normalised unless the folder says otherwise."""
    whole = replace(layout or Layout(), max_length=None)
    contract = resolve_contract(config, whole, backbone)
    lengths = {"query_length": UNLIMITED, "document_length": UNLIMITED}
    return dense_encoder(config, whole, backbone, contract.model_copy(update=lengths))


def save_static(model: DenseEncoder, folder: Path) -> None:
    """Write the table, what follows it, and the contract; sentence-transformers gives the same vectors."""
    table = model.backbone
    assert isinstance(table, WordTable)
    save_table(table, model.tokenizer.backend_tokenizer, folder / TABLE_FOLDER)
    first = {TABLE_FOLDER: "StaticEmbedding"}
    write_layout(folder, model.contract, first, model.projection, model.truncate_dim)


def _refuse_transformers_fields(config: DenseConfig) -> None:
    defaults = DenseConfig(backbone=config.backbone)
    for name in sorted(set(DenseConfig.model_fields) - OFFERED):
        value = getattr(config, name)
        if value != getattr(defaults, name):
            raise UserError(
                f"model.{name}",
                "needs a transformer, and this backbone is a table of words",
                got=value,
                cure="Leave it out",
            )
    for side, length in (("query", config.query.length), ("document", config.document.length)):
        if length is not None and length < UNLIMITED:
            raise UserError(
                f"model.{side}.length",
                "cannot cut the texts of a table of words, whose readers know no length",
                got=length,
                cure="Leave it out",
            )
    if config.pooling not in (None, "mean"):
        raise UserError(
            "model.pooling", "of a table of words is mean", got=config.pooling, cure="Leave it out"
        )
