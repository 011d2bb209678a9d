"""From a config or a folder to a late-interaction encoder, and back to a folder."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from embedtrain.contract.late_contract import LateInteractionContract
from embedtrain.errors import UserError
from embedtrain.models.backbone.fetching import OWN_FOLDER, transformer_folder
from embedtrain.models.backbone.fit import compare, shapes_of
from embedtrain.models.backbone.loading import (
    Backbone,
    Packing,
    load_backbone,
)
from embedtrain.models.backbone.long_positions import lengthen
from embedtrain.models.backbone.pretrained import quiet_transformers
from embedtrain.models.late_interaction.config import LateInteractionConfig
from embedtrain.models.late_interaction.encoder import LateInteractionEncoder
from embedtrain.models.late_interaction.layout import (
    PUNCTUATION,
    LateLayout,
    read_late_layout,
    write_late_layout,
)
from embedtrain.models.late_interaction.token_heads import TokenHeads
from embedtrain.outside import reading

DEFAULTS: dict[str, Any] = {
    "similarity": "cosine",
    "query_length": 32,
    "document_length": 180,
    "attend_to_expansion": False,
    "skiplist": PUNCTUATION,
    "dim": 128,
}
"""PyLate's, for folders that say nothing."""
MARKERS = ("[Q] ", "[D] ")
COMPRESSION = (
    *(
        "query_tokens",
        "document_tokens",
        "pool_factor",
        "binary",
        "bit_scale",
        "words",
        "gate",
        "exact_match",
    ),
    *("word_dim", "cls_dim", "token_scorer"),
)
"""Fields of the contract that a recipe states itself, whatever the folder says."""


def build_late_interaction(
    config: LateInteractionConfig, device: torch.device, folder: Path
) -> LateInteractionEncoder:
    """Load what a recipe or a folder names and put the encoder around it.

    ``folder`` is the local one of ``config.backbone``.
    """
    layout = read_late_layout(folder)
    place = str(transformer_folder(folder))
    backbone = load_backbone(place, config, trust_remote_code=config.trust_remote_code)
    contract = resolve_late_contract(config, layout, backbone)
    refuse_no_layer(contract, backbone)
    _refuse_other_pooling(config, contract, folder)
    add_markers(backbone, contract.markers)
    make = partial(TokenHeads, backbone.width, contract, config.head_dims, bias=contract.words)
    heads = restored_heads(make, layout, folder)
    return LateInteractionEncoder(
        backbone,
        contract,
        heads,
        packing=config.packing,
        learn_temperature=config.learn_temperature,
        pool_factors=config.pool_factors,
        recovery=config.recovery,
    ).to(device)


def _refuse_other_pooling(
    config: LateInteractionConfig, contract: LateInteractionContract, folder: Path
) -> None:
    """Refuse factors to train for beside what a folder keeps of a document by itself."""
    if not config.pool_factors:
        return
    kept = None
    if contract.words or contract.token_scorer:
        kept = "keeps whole words, or what a scorer chose"
    elif contract.pool_factor > 1:  # every index would take this one, whatever was trained
        kept = f"pools by a factor of its own, {contract.pool_factor}"
    if kept is not None:
        problem = f"pools tokens, and {folder} {kept}"
        got = list(config.pool_factors)
        raise UserError("model.pool_factors", problem, got=got, cure="Leave it out")


def load_late_interaction(
    path: str, folder: Path, device: torch.device, packing: Packing
) -> LateInteractionEncoder:
    """Load a folder of a late-interaction model, of whichever library, as it says."""
    config = LateInteractionConfig(kind="late_interaction", backbone=path, packing=packing)
    return build_late_interaction(config, device, folder)


def resolve_late_contract(
    config: LateInteractionConfig, layout: LateLayout, backbone: Backbone
) -> LateInteractionContract:
    """Fill what the recipe leaves open from the folder, then from the defaults.

    Where the recipe asks for longer inputs, the backbone is changed as far as weights can express them.
    """
    folder = layout.contract.model_dump() if layout.contract else dict(layout.settings)
    said_markers = folder.get("markers")
    fallback = said_markers if said_markers is not None else MARKERS
    markers, prompts = [], {}
    for place, side in enumerate(("query", "document")):
        marker = getattr(config, f"{side}_marker")
        if marker is None:
            marker = fallback[place] if fallback else ""
        markers.append(marker)
        own = getattr(config, side).prompt
        known = folder.get(f"{side}_prompt", "").removeprefix(marker)
        prompts[f"{side}_prompt"] = marker + (known if own is None else own.removeprefix(marker))
    recipe = {
        "similarity": config.similarity,
        "query_length": config.query.length,
        "document_length": config.document.length,
        "query_expansion": config.query_expansion,
        "attend_to_expansion": config.attend_to_expansion,
        "skiplist": config.skiplist,
        "dim": config.dim or (config.head_dims[0] if config.head_dims else None),
    }
    if layout.contract is None or any(
        getattr(config, name) for name in COMPRESSION if name != "pool_factor"
    ):
        recipe |= {name: getattr(config, name) for name in COMPRESSION}
    if config.pool_factor > 1:
        recipe["pool_factor"] = config.pool_factor
    projection = layout.heads.get("projection.weight")
    width = {} if projection is None or layout.contract else {"dim": len(projection)}
    expansion = _expands(config, folder, backbone)
    chosen = {key: value for key, value in recipe.items() if value is not None}
    settings = DEFAULTS | width | folder | chosen | prompts
    settings |= {"markers": tuple(markers) if any(markers) else (), "query_expansion": expansion}
    known = folder.get("long_inputs")
    limit = max(backbone.max_length, known["length"] if known else 0)
    for key in ("query_length", "document_length"):
        if key not in chosen:
            settings[key] = min(settings[key], limit)
    contract = LateInteractionContract.model_validate(settings)
    return lengthen(
        backbone.model,
        contract,
        config.long_inputs,
        "model.long_inputs",
        length=config.document.length,
    )


def _expands(config: LateInteractionConfig, folder: dict[str, Any], backbone: Backbone) -> bool:
    """Whether queries are filled up with mask tokens; a wish without such a token is an error."""
    has_mask = backbone.tokenizer.mask_token_id is not None
    if config.query_expansion and not has_mask:
        raise UserError(
            "model.query_expansion",
            "needs a mask token, which the tokenizer lacks",
            got=True,
            cure="Set it to false",
        )
    if config.query_expansion is not None:
        return config.query_expansion
    return has_mask and not config.words and bool(folder.get("query_expansion", True))


def refuse_no_layer(contract: LateInteractionContract, backbone: Backbone) -> None:
    """Refuse to score the states of a layer that is none before the last.

    Raises:
        UserError: Naming how many there are.
    """
    layer = None if contract.token_scorer is None else contract.token_scorer.layer
    total = int(backbone.model.config.num_hidden_layers)
    if layer is not None and layer >= total:
        raise UserError(
            "model.token_scorer.layer",
            f"is none before the last, of {total}",
            got=layer,
            cure="Lower it, or leave it out",
        )


def add_markers(backbone: Backbone, markers: tuple[str, ...]) -> None:
    """Make each marker one token, with a new row of embeddings where the vocabulary lacks it.

    New rows are drawn around the mean of the others, always the same: the recipe's seed is for training.
    """
    from tokenizers import AddedToken

    tokenizer = backbone.tokenizer
    wanted = [AddedToken(text, special=True, normalized=False) for text in markers if text]
    tokenizer.add_tokens(wanted, special_tokens=True)
    if len(tokenizer) > backbone.model.get_input_embeddings().num_embeddings:
        with torch.random.fork_rng(devices=[]), quiet_transformers():
            torch.manual_seed(0)
            backbone.model.resize_token_embeddings(len(tokenizer))
    for text in markers:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"] if text else [0]
        if len(ids) != 1:
            raise UserError(
                "model.query_marker", "is not one token", got=text, cure="Choose another marker"
            )


def restored_heads(
    make: Callable[[], TokenHeads],
    layout: LateLayout,
    folder: Path,
) -> TokenHeads:
    """Make the heads and fill them from the folder; what a recipe adds to the folder's starts afresh.

    A projection that is wider than wanted gives its first rows: a Matryoshka prefix.

    Raises:
        UserError: If the folder lacks weights of heads that it says it has, or sizes do not fit.
    """
    with (
        reading(folder, also=(RuntimeError,)),
        torch.device("meta"),
    ):  # sizes are compared before memory is taken
        sketch = make()
        known, stated = shapes_of(sketch.state_dict()), set[str]()
        if layout.contract is not None:
            width = sketch.projection.in_features
            stated |= set(
                TokenHeads(width, layout.contract, bias=layout.contract.words).state_dict()
            )
    stored = _first_rows(layout.heads, sketch.projection)
    compare(folder, known, shapes_of(stored), optional=lambda name: name not in stated)
    heads = make()
    heads.load_state_dict(
        heads.state_dict() | {key: value for key, value in stored.items() if key in known}
    )
    return heads


def _first_rows(heads: Mapping[str, Tensor], projection: nn.Linear) -> dict[str, Tensor]:
    """Return stored heads with so many rows of their projection as ``projection`` has."""
    stored = dict(heads)
    weight = stored.get("projection.weight")
    if weight is None or weight.dim() != 2:
        return stored
    wanted, have = projection.out_features, len(weight)
    if wanted > have or weight.shape[1] != projection.in_features:
        raise UserError(
            "model.dim",
            f"does not fit the folder's projection of {weight.shape[1]} to {have}",
            got=wanted,
            cure=f"Use at most {have}, or start from the bare backbone",
        )
    for key in ("projection.weight", "projection.bias"):
        if key in stored:
            stored[key] = stored[key][:wanted]
    return stored


def save_late_interaction(model: LateInteractionEncoder, folder: Path) -> None:
    """Write the encoder as PyLate does where that keeps its vectors, else in our own layout."""
    folder.mkdir(parents=True, exist_ok=True)
    model.use_padded_attention()  # the name of the packed attention means nothing to other readers
    place = folder if model.contract.is_portable else folder / OWN_FOLDER
    backend = model.tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    with quiet_transformers():
        model.backbone.save_pretrained(place)
    model.tokenizer.save_pretrained(place)
    write_late_layout(folder, model.contract, model.heads)
