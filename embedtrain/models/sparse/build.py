"""From a config or a folder to a sparse encoder, and back to a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from embedtrain.contract.sparse_contract import SparseContract, SparseHead, Winners
from embedtrain.errors import UserError
from embedtrain.models.backbone.fetching import OWN_FOLDER, fetch, transformer_folder
from embedtrain.models.backbone.fit import read_headers
from embedtrain.models.backbone.folder_files import BackboneFile, read_form
from embedtrain.models.backbone.language_head import (
    DECODERS,
    MaskedLanguageModel,
    has_language_head,
    load_masked_language_model,
)
from embedtrain.models.backbone.loading import Backbone, Packing, load_backbone
from embedtrain.models.backbone.pretrained import quiet_transformers, save_tokenizer
from embedtrain.models.dense.echo import refuse_no_room
from embedtrain.models.dense.layout import write_contract
from embedtrain.models.saved_part import restored
from embedtrain.models.sparse.code_build import build_code, save_code
from embedtrain.models.sparse.code_head import CodeHead
from embedtrain.models.sparse.config import SparseConfig
from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.models.sparse.layout import (
    ROUTED,
    STATIC_FOLDER,
    SparseLayout,
    is_sparse,
    read_sparse_layout,
    write_settings,
    write_sparse_layout,
)
from embedtrain.models.sparse.query_weights import QueryWeights, QueryWeightsConfig
from embedtrain.models.sparse.resolving import resolve_sparse_contract
from embedtrain.models.sparse.token_weights import CONVERTED, PUBLISHED, TokenWeights
from embedtrain.models.sparse.vocabulary_head import VocabularyHead
from embedtrain.models.sparse.winner_take_all import WinnerTakeAll

OF_WORDS = ("activation", "special_entries", "pooled_tokens", "static_queries")
"""Fields of the contract that a head without words does not know."""
NEVER = -1e4
"""A bias that no logit overcomes."""


def build_sparse(config: SparseConfig, device: torch.device) -> SparseEncoder:
    """Load what a recipe or a folder names and put the encoder around it.

    Raises:
        UserError: If the backbone has no masked-language head.
    """
    folder = fetch(config.backbone)
    layout = read_sparse_layout(folder)
    place = transformer_folder(folder)
    kind = _head_of(config, layout, folder)
    if kind != "vocabulary":
        build = build_code if kind == "code" else _build_headed
        _refuse_other_head(config, layout, folder, kind)
        return build(config, layout, folder, place).to(device)
    _refuse_headless(config.backbone, place)
    language = load_masked_language_model(str(place), config)
    _refuse_untrained_head(config, language)
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


def _head_of(config: SparseConfig, layout: SparseLayout, folder: Path) -> SparseHead:
    published = any((folder / name).is_file() for name in (CONVERTED, PUBLISHED))
    if config.head is None and not is_sparse(folder) and published:
        return "token_weights"
    return config.head or _stated_head(layout)


def _stated_head(layout: SparseLayout) -> SparseHead:
    head: SparseHead = layout.settings.get("head", "vocabulary")
    return layout.contract.head if layout.contract else head


def _refuse_other_head(
    config: SparseConfig, layout: SparseLayout, folder: Path, kind: SparseHead
) -> None:
    """Refuse a code over a sparse model, and words where there are none."""
    stated = _stated_head(layout)
    if kind == "code" and is_sparse(folder) and stated != kind:
        raise UserError(
            config.backbone, "is a sparse model already, and model.head: code stands on a dense one",
            got=stated, cure="Give a dense model, or leave head out",
        )  # fmt: skip
    for name in ("query_weights", "start_entries"):
        if getattr(config, name) is not None:
            raise UserError(
                f"model.{name}", f"is of words, which head: {kind} has not", cure="Drop it"
            )


def _build_headed(
    config: SparseConfig, layout: SparseLayout, folder: Path, place: Path
) -> SparseEncoder:
    """Put a head of its own behind any backbone, with the folder's weights where it has some."""
    backbone, kind = load_backbone(str(place), config), _head_of(config, layout, folder)
    is_new = layout.contract is None or layout.contract.head != kind
    contract = resolve_sparse_contract(config, layout, backbone, 0, is_new=is_new)
    refuse_no_room(contract, backbone)
    fields = SparseContract.model_fields
    unused = {name: fields[name].default for name in OF_WORDS}  # of the folder that it starts from
    unused["head"] = kind
    head: WinnerTakeAll | TokenWeights
    if kind == "token_weights":
        special = backbone.tokenizer.all_special_ids
        weights = partial(TokenWeights, backbone.width, len(backbone.tokenizer), special)
        head = restored(weights, folder, required=not is_new)
        head = head.load_published(folder) if is_new else head
    else:
        unused["winners"] = _checked_winners(contract, backbone)
        wide = partial(WinnerTakeAll, backbone.width, unused["winners"])
        head = restored(wide, folder, required=not is_new)
    return SparseEncoder(
        backbone, contract.model_copy(update=unused), head,
        packing=config.packing, learn_temperature=config.learn_temperature,
    )  # fmt: skip


def _checked_winners(contract: SparseContract, backbone: Backbone) -> Winners:
    winners, known = contract.winners or Winners(), backbone.model.config.num_hidden_layers
    if (
        list(winners.layers) != sorted(set(winners.layers))
        or max(winners.layers, default=0) >= known
    ):
        raise UserError(
            "model.winners.layers", f"must ascend and lie below the last of the {known} layers",
            got=winners.layers, cure="The last layer always has its own: leave it out",
        )  # fmt: skip
    return winners


def load_sparse(path: str, device: torch.device, packing: Packing = "auto") -> SparseEncoder:
    """Load a folder of a sparse model, of whichever library, or a masked-language model as one."""
    return build_sparse(SparseConfig(kind="sparse", backbone=path, packing=packing), device)


def _query_weights(
    config: SparseConfig, layout: SparseLayout, language: MaskedLanguageModel
) -> QueryWeights:
    """Return the weights of a query's tokens, those of the folder where it has some."""
    weights = QueryWeights(len(language.weight), _weightless(language.tokenizer))
    wish, stored = config.query_weights or QueryWeightsConfig(), layout.query_weights
    if not wish.trained or (stored is not None and config.query_weights is None):
        weights.freeze()  # they may have been frozen where the folder comes from, which it does not say
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


def _weightless(tokenizer: Any) -> list[int]:  # noqa: ANN401 - transformers is untyped
    """Return the special tokens but the unknown one, which is what a query holds and others give weight to.

    Where the tokenizer itself adds it to every text, under another name, it has none either.
    """
    added = tokenizer("")["input_ids"]
    unknown = tokenizer.unk_token_id
    return [one for one in tokenizer.all_special_ids if one != unknown or one in added]


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


def _refuse_untrained_head(config: SparseConfig, language: MaskedLanguageModel) -> None:
    """Refuse adapters where the head would stay the random numbers that it starts with."""
    model = language.model
    own = getattr(model.config, "tie_word_embeddings", False)
    own = own or any(name.startswith("lm_head.") for name in read_headers(language.folder))
    if config.lora is not None and model.config.model_type in DECODERS and not own:
        raise UserError(
            config.backbone, "has no head of its own, and model.lora would leave it at random numbers",
            cure="Give a model ...ForCausalLM, or leave lora out",
        )  # fmt: skip


def save_sparse(model: SparseEncoder, folder: Path) -> None:
    """Write the encoder as sentence-transformers does where that keeps its vectors, else in our own layout."""
    folder.mkdir(parents=True, exist_ok=True)
    model.use_padded_attention()  # the name of the packed attention means nothing to other readers
    backend = model.tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    contract, weights = model.contract, model.query_weights
    if isinstance(model.head, CodeHead):
        place = folder if model.is_portable else folder / OWN_FOLDER
        _save_transformer(model, place)
        save_code(model, folder, place)
        if model.is_portable:
            write_settings(folder, contract)
        write_contract(folder, "sparse", contract)
        return
    if not model.is_portable:
        _save_transformer(model, folder / OWN_FOLDER)
        if weights is not None:
            weights.save(folder)
        if isinstance(model.head, WinnerTakeAll | TokenWeights):
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
    special = model.tokenizer.num_special_tokens_to_add()
    save_tokenizer(model.tokenizer, folder, model.contract.query_length - special)


@contextmanager
def _closed(head: nn.Module) -> Iterator[None]:
    """Give entries that the head drops a bias that no logit overcomes, for readers that know of no dropping."""
    if not isinstance(head, VocabularyHead):
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
