"""Tiny late-interaction models of every kind, and their vectors text by text."""

from pathlib import Path

import torch

from embedtrain.models.build import build_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.late_interaction.config import LateInteractionConfig
from embedtrain.models.late_interaction.encoder import LateInteractionEncoder
from embedtrain.types import TokenEmbeddings

WHOLE = Execution(100_000)
TEXTS = ["red cat runs", "the small blue bird sleeps near a large tree", "dog", "a a a house"]


def encoder(bert: Path, **settings: object) -> LateInteractionEncoder:
    settings = {"query": {"length": 12}, "document": {"length": 20}, "dim": 8} | settings
    torch.manual_seed(0)
    config = LateInteractionConfig(kind="late_interaction", backbone=str(bert), **settings)
    model = build_encoder(config, "cpu")
    assert isinstance(model, LateInteractionEncoder)
    return model.eval()


def embed(
    model: LateInteractionEncoder, texts: list[str], side: str = "document"
) -> TokenEmbeddings:
    return model.embed(model.tokenization.encode(texts, side), WHOLE, side)


def per_text(embeddings: TokenEmbeddings) -> list[torch.Tensor]:
    return list(torch.split(embeddings.tokens, embeddings.lengths.tolist()))


VARIANTS = {
    "plain": {},
    "heads": {"head_dims": (8, 4)},
    "pooled": {"pool_factor": 2},
    "several pooled": {"pool_factors": (1, 2, 4)},
    "binary": {"binary": True},
    "scaled bits": {"binary": True, "bit_scale": True},
    "recovered bits": {"binary": True, "recovery": True},
    "scored": {"token_scorer": {"keep_ratio": 0.5, "layer": 1, "noise": 0.0}},
    "colberter": {
        "words": True,
        "gate": True,
        "cls_dim": 6,
        "similarity": "dot",
        "query_expansion": False,
    },
    "exact match": {
        "words": True,
        "gate": True,
        "exact_match": True,
        "word_dim": 8,
        "dim": 1,
        "similarity": "dot",
        "query_expansion": False,
    },
}
