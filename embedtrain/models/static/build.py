"""Static word embeddings as a dense encoder: built from a folder or a table, saved for sentence-transformers."""

from dataclasses import replace
from pathlib import Path

from torch import nn

from embedtrain.contract.texts import Contract
from embedtrain.errors import UserError
from embedtrain.models.backbone.files import write_json, write_projection
from embedtrain.models.backbone.loading import Backbone
from embedtrain.models.backbone.word_table import WordTable, load_table, save_table
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.dense.layout import CONTRACT_FILE, Layout, read_layout
from embedtrain.models.dense.resolving import resolve_contract

TABLE_FOLDER = "0_StaticEmbedding"
UNLIMITED = 1_000_000
"""Tokens of a text: what a contract says where there are no positions to run out of."""
OFFERED = frozenset(
    (
        *("kind", "backbone", "pooling", "similarity", "query", "document", "instructions"),
        *("projection", "learn_temperature", "pair_classes", "packing"),
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
    encoder = static_encoder(backbone, config, read_layout(backbone.folder))
    if config.pair_classes is not None:
        encoder.add_pair_classifier(config.pair_classes)
    return encoder


def static_encoder(
    backbone: Backbone, config: DenseConfig, layout: Layout | None = None
) -> DenseEncoder:
    """Put an encoder around a table: mean of rows, normalised unless the folder says otherwise."""
    whole = replace(layout or Layout(), max_length=None)
    contract = resolve_contract(config, whole, backbone)
    lengths = {"query_length": UNLIMITED, "document_length": UNLIMITED}
    projection = whole.projection
    if config.projection is not None:
        projection = nn.Linear(backbone.width, config.projection, bias=False)
    encoder = DenseEncoder(
        backbone,
        contract.model_copy(update=lengths),
        projection,
        packing=config.packing,
        learn_temperature=config.learn_temperature,
    )
    if config.projection is None:
        encoder.truncate_dim = whole.truncate_dim
    return encoder


def save_static(model: DenseEncoder, folder: Path) -> None:
    """Write the table, what follows it, and the contract; sentence-transformers gives the same vectors."""
    contract: Contract = model.contract
    table = model.backbone
    assert isinstance(table, WordTable)
    save_table(table, model.tokenizer.backend_tokenizer, folder / TABLE_FOLDER)
    modules = [("StaticEmbedding", TABLE_FOLDER)]
    if model.projection is not None:
        modules.append(("Dense", "1_Dense"))
        write_projection(folder / "1_Dense", model.projection)
    if contract.similarity == "cosine":
        modules.append(("Normalize", f"{len(modules)}_Normalize"))
        write_json(folder / modules[-1][1] / "config.json", {})
    write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(modules)
        ],
    )
    prompts = {"query": contract.query_prompt, "document": contract.document_prompt}
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "SentenceTransformer",
            "__version__": {"sentence_transformers": "5.0.0"},
            "prompts": prompts | {name: one.query for name, one in contract.instructions.items()},
            "default_prompt_name": None,
            "similarity_fn_name": contract.similarity,
            **({} if model.truncate_dim is None else {"truncate_dim": model.truncate_dim}),
        },
    )
    write_json(folder / CONTRACT_FILE, {"kind": "dense", "contract": contract.model_dump()})


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
