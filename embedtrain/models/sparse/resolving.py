"""From a recipe and a backbone's folder to the contract of a sparse encoder."""

from typing import Any

from embedtrain.contract.sparse_contract import SparseContract
from embedtrain.models.backbone.language_head import DECODERS
from embedtrain.models.backbone.loading import Backbone
from embedtrain.models.backbone.long_positions import lengthen
from embedtrain.models.dense.layout import DEFAULT_LENGTH
from embedtrain.models.sparse.config import SparseConfig, SparseTextSide
from embedtrain.models.sparse.layout import SparseLayout
from embedtrain.types import Side

NEW_LENGTHS = {"query_length": 64, "document_length": 256}
"""Tokens, where neither recipe nor folder says more."""
SIDES: tuple[Side, ...] = ("query", "document")
OWN_FIELDS = ("head", "winners", "code", "activation", "special_entries", "pooled_tokens", "echo")
"""Fields of the contract that a recipe names as they are."""


def resolve_sparse_contract(
    config: SparseConfig, layout: SparseLayout, backbone: Backbone, rows: int, *, is_new: bool
) -> SparseContract:
    """Fill what the recipe leaves open from the folder, then from the defaults.

    ``rows`` are those of the output matrix. Where the recipe asks for longer inputs, the backbone is changed as far as weights can express them.
    """
    said: dict[str, Any] = (
        layout.contract.model_dump() if layout.contract else dict(layout.settings)
    )
    recipe: dict[str, Any] = {name: getattr(config, name) for name in OWN_FIELDS}
    if config.query_weights is not None:
        recipe["static_queries"] = True
    for side in SIDES:
        wish = getattr(config, side)
        recipe |= {
            f"{side}_prompt": wish.prompt,
            f"{side}_length": wish.length,
            f"{side}_top_k": wish.top_k,
        }
    chosen = {key: value for key, value in recipe.items() if value is not None}
    limit = min(backbone.max_length, DEFAULT_LENGTH)
    lengths = {key: min(value, limit) for key, value in NEW_LENGTHS.items()}
    if not is_new:
        lengths = dict.fromkeys(NEW_LENGTHS, limit)
    causal = backbone.model.config.model_type in DECODERS
    defaults = lengths | {"pooled_tokens": "without_special" if causal and is_new else "all"}
    unused = {"unused_entries": max(0, rows - len(backbone.tokenizer))}
    contract = SparseContract.model_validate(defaults | said | chosen | unused)
    return lengthen(
        backbone.model,
        contract,
        config.long_inputs,
        "model.long_inputs",
        length=config.document.length,
    )


def resolved_sparse(contract: SparseContract) -> dict[str, object]:
    """Return the fields of a recipe's model that say what the contract says."""
    sides: dict[str, object] = {
        side: SparseTextSide(
            prompt=contract.prompt(side), length=contract.length(side), top_k=contract.top_k(side)
        )
        for side in SIDES
    }
    return {name: getattr(contract, name) for name in OWN_FIELDS} | sides
