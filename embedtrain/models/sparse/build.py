"""From a config or a folder to a sparse encoder, and back to a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from embedtrain.contract.sparse_contract import SparseContract, SparseHead, Winners
from embedtrain.errors import UserError
from embedtrain.models.backbone.fetching import OWN_FOLDER, fetch, transformer_folder
from embedtrain.models.backbone.folder_files import BackboneFile, read_form
from embedtrain.models.backbone.language_head import (
    DECODERS,
    MaskedLanguageModel,
    has_language_head,
    load_masked_language_model,
)
from embedtrain.models.backbone.loading import Backbone, Packing, load_backbone
from embedtrain.models.backbone.long_positions import lengthen
from embedtrain.models.backbone.pretrained import quiet_transformers
from embedtrain.models.dense.echo import refuse_no_room
from embedtrain.models.dense.layout import DEFAULT_LENGTH, write_contract
from embedtrain.models.saved_part import restored
from embedtrain.models.sparse.config import SparseConfig, SparseTextSide
from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.models.sparse.layout import (
    ROUTED,
    STATIC_FOLDER,
    SparseLayout,
    is_sparse,
    read_sparse_layout,
    write_sparse_layout,
)
from embedtrain.models.sparse.query_weights import QueryWeights, QueryWeightsConfig
from embedtrain.models.sparse.vocabulary_head import VocabularyHead
from embedtrain.models.sparse.winner_take_all import WinnerTakeAll
from embedtrain.types import Side

NEW_LENGTHS = {"query_length": 64, "document_length": 256}
"""Tokens, where neither recipe nor folder says more."""
NEVER = -1e4
"""A bias that no logit overcomes."""
SIDES: tuple[Side, ...] = ("query", "document")
OWN_FIELDS = ("head", "winners", "activation", "special_entries", "pooled_tokens", "echo")
"""Fields of the contract that a recipe names as they are."""


def build_sparse(config: SparseConfig, device: torch.device) -> SparseEncoder:
    """Load what a recipe or a folder names and put the encoder around it.

    Raises:
        UserError: If the backbone has no masked-language head.
    """
    folder = fetch(config.backbone)
    layout = read_sparse_layout(folder)
    place = transformer_folder(folder)
    if _head_of(config, layout) == "winner_take_all":
        return _build_wide(config, layout, folder, place).to(device)
    _refuse_headless(config.backbone, place)
    language = load_masked_language_model(str(place), config)
    contract = resolve_sparse_contract(
        config, layout, language.backbone, len(language.weight), is_new=not is_sparse(folder)
    )
    refuse_no_room(contract, language.backbone)
    head = VocabularyHead(language, contract)
    encoder = SparseEncoder(
        language.backbone,
        contract,
        head,
        _query_weights(config, layout, language) if contract.static_queries else None,
        packing=config.packing,
        learn_temperature=config.learn_temperature,
    )
    return encoder.to(device)


def _head_of(config: SparseConfig, layout: SparseLayout) -> SparseHead:
    stated = layout.contract.head if layout.contract else "vocabulary"
    return config.head or stated


def _build_wide(
    config: SparseConfig, layout: SparseLayout, folder: Path, place: Path
) -> SparseEncoder:
    """Put a winner-take-all head behind any backbone, with the folder's weights where it has some."""
    backbone = load_backbone(str(place), config)
    is_new = layout.contract is None or layout.contract.head != "winner_take_all"
    contract = resolve_sparse_contract(config, layout, backbone, 0, is_new=is_new)
    winners, known = contract.winners or Winners(), backbone.model.config.num_hidden_layers
    if (
        list(winners.layers) != sorted(set(winners.layers))
        or max(winners.layers, default=0) >= known
    ):
        raise UserError(
            "model.winners.layers", f"must ascend and lie below the last of the {known} layers",
            got=winners.layers, cure="The last layer always has its own: leave it out",
        )  # fmt: skip
    refuse_no_room(contract, backbone)
    head = restored(partial(WinnerTakeAll, backbone.width, winners), folder, required=not is_new)
    contract = contract.model_copy(update={"winners": winners})
    return SparseEncoder(
        backbone, contract, head,
        packing=config.packing, learn_temperature=config.learn_temperature,
    )  # fmt: skip


def load_sparse(path: str, device: torch.device, packing: Packing = "auto") -> SparseEncoder:
    """Load a folder of a sparse model, of whichever library, or a masked-language model as one."""
    return build_sparse(SparseConfig(kind="sparse", backbone=path, packing=packing), device)


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
    if config.long_inputs is None:
        return contract
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


def _query_weights(
    config: SparseConfig, layout: SparseLayout, language: MaskedLanguageModel
) -> QueryWeights:
    """Return the weights of a query's tokens, those of the folder where it has some."""
    weights = QueryWeights(len(language.weight), list(language.tokenizer.all_special_ids))
    wish, stored = config.query_weights or QueryWeightsConfig(), layout.query_weights
    if not wish.trained:
        weights.freeze()
    weights.learning_rate = wish.learning_rate
    if stored is None:
        return weights
    if len(stored) > len(weights.weight):
        raise UserError(
            language.path,
            f"has {len(weights.weight)} words, and queries have weights for more",
            got=len(stored),
            cure="Take both from one place",
        )
    weights.from_folder = True
    with torch.no_grad():  # some writers leave the last tokens out
        weights.weight[: len(stored)] = stored
        weights.weight[len(stored) :] = 0
    return weights


def _refuse_headless(path: str, folder: Path) -> None:
    config = read_form(folder / "config.json", BackboneFile)
    if config.model_type in DECODERS or has_language_head(folder):
        return
    raise UserError(
        path,
        "has no masked-language head, which gives a sparse model its words",
        got=config.architectures,
        cure="Give a model ...ForMaskedLM, or train a head: embedtrain train recipes/pretrain/mlm.yaml "
        f"model.backbone={path}",
    )


def save_sparse(model: SparseEncoder, folder: Path) -> None:
    """Write the encoder as sentence-transformers does where that keeps its vectors, else in our own layout."""
    folder.mkdir(parents=True, exist_ok=True)
    model.use_padded_attention()  # the name of the packed attention means nothing to other readers
    backend = model.tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    contract, weights = model.contract, model.query_weights
    if not model.is_portable:
        _save_transformer(model, folder / OWN_FOLDER)
        if weights is not None:
            weights.save(folder)
        if isinstance(model.head, WinnerTakeAll):
            model.head.save(folder)
        write_contract(folder, "sparse", contract)
        return
    if weights is None:
        _save_transformer(model, folder)
        write_sparse_layout(folder, contract, model.dim, None)
        return
    _save_transformer(model, folder / next(iter(ROUTED)))
    _save_query_tokenizer(model, folder / STATIC_FOLDER)
    write_sparse_layout(folder, contract, model.dim, weights.effective.detach())


def _save_transformer(model: SparseEncoder, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model.tokenizer.save_pretrained(folder)
    with quiet_transformers(), _closed(model.head):
        if isinstance(model.head, VocabularyHead):
            model.head.language.model.save_pretrained(folder)
        else:
            model.backbone.save_pretrained(folder)


def _save_query_tokenizer(model: SparseEncoder, folder: Path) -> None:
    """Write the tokenizer for readers that add no special tokens and cut at the limit that it states."""
    tokenizer, before = model.tokenizer, model.tokenizer.model_max_length
    special = tokenizer.num_special_tokens_to_add()
    tokenizer.model_max_length = model.contract.query_length - special
    tokenizer.save_pretrained(folder)
    tokenizer.model_max_length = before


@contextmanager
def _closed(head: VocabularyHead | WinnerTakeAll) -> Iterator[None]:
    """Give entries that the head drops a bias that no logit overcomes, for readers that know of no dropping."""
    if isinstance(head, WinnerTakeAll):
        yield
        return
    bias, dropped = head.language.bias, head.dropped
    if bias is None or not len(dropped):
        yield
        return
    before = bias.detach().clone()
    with torch.no_grad():
        bias[dropped] = NEVER
    try:
        yield
    finally:
        with torch.no_grad():
            bias.copy_(before)
