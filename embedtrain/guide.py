"""Encode all texts of the training data with a guide, before training."""

from pathlib import Path

import numpy as np
from jaxtyping import Float32
from torch import Tensor

from embedtrain.data.examples import SourceConfig
from embedtrain.data.sources import open_source
from embedtrain.data.tokenized import text_id
from embedtrain.errors import UserError
from embedtrain.mining.embedding_cache import embed_once, model_key
from embedtrain.models.build import load_encoder
from embedtrain.models.dense import DenseEncoder
from embedtrain.models.interaction import refuse_interaction
from embedtrain.progress import console
from embedtrain.training.guide import Guide, GuideConfig, StoredVectors, principal_components
from embedtrain.types import Side

SAMPLE = 40_000
"""Documents that principal components are found on."""


def encode_guide(config: GuideConfig, sources: tuple[SourceConfig, ...], cache: Path) -> Guide:
    """Return the guide's vectors of every distinct text; memory holds the texts while it encodes.

    Raises:
        UserError: If the guide gives several vectors per text.
    """
    model = load_encoder(config.model)
    if not isinstance(model, DenseEncoder):
        raise UserError(
            "guide.model", "gives several vectors per text", got=config.model,
            cure="Name a model of one vector per text",
        )  # fmt: skip
    refuse_interaction(model, "guide.model")
    texts: dict[Side, dict[int, str]] = {"query": {}, "document": {}}
    for source in sources:
        for example in open_source(source, cache).examples():
            texts["query"].setdefault(text_id(example.query), example.query)
            for text in example.positives + example.negatives:
                texts["document"].setdefault(text_id(text), text)
    key = model_key(model)

    def store(side: Side) -> StoredVectors:
        ids = np.array(list(texts[side]), dtype=np.int64)
        values = embed_once(model, key, list(texts[side].values()), side, cache)
        order = np.argsort(ids)
        return StoredVectors(ids[order], order, values)

    queries, documents = store("query"), store("document")
    return Guide(queries, documents, _components(config, documents))


def _components(config: GuideConfig, documents: StoredVectors) -> Float32[Tensor, "_ _"] | None:
    """Find the directions that the guide shows, on its first documents."""
    if config.dim is None:
        return None
    sample = np.array(documents.values[:SAMPLE])
    if config.dim > min(sample.shape):
        raise UserError(
            "guide.dim",
            f"is more than {sample.shape[0]} vectors of {sample.shape[1]} dimensions have",
            got=config.dim,
            cure="Lower it",
        )
    found, share = principal_components(sample, config.dim)
    console.print(f"{config.dim} components of the guide hold {share:.1%} of its variance")
    return found
