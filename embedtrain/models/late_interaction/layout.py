"""Folder layouts of late-interaction models: PyLate, sentence-transformers, Stanford ColBERT and our own.

We write PyLate's layout: PyLate and sentence-transformers 6 both load it with the same vectors, while what
sentence-transformers writes itself PyLate cannot load. A model that PyLate cannot express is written with
its backbone in a folder of its own, so that no reader takes it for something simpler.
"""

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from embedtrain.contract.texts import LateInteractionContract
from embedtrain.errors import UserError
from embedtrain.files import read_json, write_json
from embedtrain.models.backbone.files import (
    linear_layer,
    read_projection,
    read_weights,
    readable_weights,
    write_modules,
    write_projection,
    write_weights,
)
from embedtrain.models.dense.layout import (
    CONTRACT_FILE,
    read_contract,
    settings_of,
    write_contract,
    write_length,
)
from embedtrain.models.late_interaction.token_heads import TokenHeads

HEADS_FILE = "heads.safetensors"
BACKBONE_FOLDER = "backbone"
PUNCTUATION = tuple(string.punctuation)
Settings = dict[str, Any]


@dataclass(frozen=True)
class LateLayout:
    """What a folder says; empty where it says nothing.

    ``settings`` are fields of the contract. ``heads`` are the weights of :class:`TokenHeads`.
    """

    contract: LateInteractionContract | None
    settings: Settings
    heads: dict[str, Tensor]


def is_late_interaction(folder: Path) -> bool:
    """Whether a folder holds a late-interaction model, of whichever library."""
    if (folder / CONTRACT_FILE).is_file():
        return bool(read_json(folder / CONTRACT_FILE).get("kind") == "late_interaction")
    kind = read_json(folder / "config_sentence_transformers.json", optional=True).get("model_type")
    return kind in ("ColBERT", "MultiVectorEncoder") or _is_stanford(folder)


def backbone_folder(folder: Path) -> Path:
    """Return where the transformer lies in a model folder."""
    own = folder / BACKBONE_FOLDER
    return own if own.is_dir() else folder


def read_late_layout(folder: Path) -> LateLayout:
    """Read how a folder wants its token vectors made.

    Raises:
        UserError: If it holds modules that cannot be expressed, or files that are not valid.
    """
    contract = None
    if is_late_interaction(folder):
        contract = read_contract(folder, LateInteractionContract)
    if (folder / HEADS_FILE).is_file():
        return LateLayout(contract, {}, read_weights(folder / HEADS_FILE))
    if _is_stanford(folder):
        return _read_stanford(folder)
    settings = read_json(folder / "config_sentence_transformers.json", optional=True)
    kind = settings.get("model_type")
    if kind not in ("ColBERT", "MultiVectorEncoder"):
        return LateLayout(contract, {}, {})
    said, heads = _read_modules(folder)
    said |= _read_pylate(settings) if kind == "ColBERT" else _read_native(folder, settings)
    return LateLayout(contract, said, heads)


def _read_modules(folder: Path) -> tuple[Settings, dict[str, Tensor]]:
    settings: Settings = {"similarity": "cosine"}
    heads: dict[str, Tensor] = {}
    for module in read_json(folder / "modules.json"):
        kind, path = module["type"].rsplit(".", 1)[-1], folder / module["path"]
        if kind == "Dense":
            config = read_json(path / "config.json")
            if heads or config.get("use_residual"):
                raise UserError(path, "is a second or residual projection, which is not offered")
            for key, value in read_projection(path).state_dict().items():
                heads[f"projection.{key}"] = value
        elif kind == "MultiVectorMask":
            config = read_json(path / "config.json", optional=True)
            if config.get("keep_only_token_ids"):
                raise UserError(path, "keeps image tokens only, which is not offered")
            settings["skiplist"] = tuple(config.get("skiplist_words") or ())
        elif kind == "HierarchicalTokenPooling":
            settings["pool_factor"] = read_json(path / "config.json")["pool_factor"]
        elif kind not in ("Transformer", "Normalize"):
            raise UserError(
                folder / "modules.json", "names a module late interaction has no use for", got=kind
            )
    return settings, heads


def _read_pylate(settings: Settings) -> Settings:
    markers = {side: settings.get(f"{side}_prefix") for side in ("query", "document")}
    prompts = settings.get("prompts") or {}
    said: Settings = {
        "markers": tuple(markers[side] or "" for side in ("query", "document")),
        "query_prompt": (markers["query"] or "") + (prompts.get("query") or ""),
        "document_prompt": (markers["document"] or "") + (prompts.get("document") or ""),
        "query_expansion": settings.get("do_query_expansion", True),
        "attend_to_expansion": settings.get("attend_to_expansion_tokens") or False,
        "skiplist": PUNCTUATION,
    }
    if settings.get("skiplist_words") is not None:
        said["skiplist"] = tuple(settings["skiplist_words"])
    for key in ("query_length", "document_length"):
        if settings.get(key):
            said[key] = settings[key]
    return said


def _read_native(folder: Path, settings: Settings) -> Settings:
    transformer = read_json(folder / "sentence_bert_config.json", optional=True)
    prompts = settings.get("prompts") or {}
    expansion = transformer.get("query_expansion") or {}
    if expansion and expansion.get("strategy") != "fixed":
        raise UserError(
            folder, "expands queries to a minimum length, which is not offered", got=expansion
        )
    said: Settings = {
        "markers": (),
        "query_prompt": prompts.get("query") or "",
        "document_prompt": prompts.get("document") or "",
        "query_expansion": bool(expansion),
        "attend_to_expansion": bool(expansion.get("attend")),
    }
    lengths = {
        "query_length": expansion.get("length") or transformer.get("query_length"),
        "document_length": transformer.get("document_length") or transformer.get("max_seq_length"),
    }
    return said | {key: value for key, value in lengths.items() if value}


def _is_stanford(folder: Path) -> bool:
    config = read_json(folder / "config.json", optional=True)
    return "HF_ColBERT" in (config.get("architectures") or ())


def _read_stanford(folder: Path) -> LateLayout:
    metadata = read_json(folder / "artifact.metadata", optional=True)
    if not (folder / "model.safetensors").is_file():
        raise UserError(
            folder,
            "has no model.safetensors",
            cure="Save the weights as safetensors; no pickle is loaded",
        )
    path = folder / "model.safetensors"
    with readable_weights(path), safe_open(path, framework="pt") as weights:
        if "linear.weight" not in weights.keys():  # noqa: SIM118 - not a mapping
            raise UserError(folder / "model.safetensors", "lacks ColBERT's linear.weight")
        projection = weights.get_tensor("linear.weight")
    markers = (
        metadata.get("query_token_id", "[unused0]"),
        metadata.get("doc_token_id", "[unused1]"),
    )
    settings = {
        "similarity": "cosine",
        "markers": markers,
        "query_prompt": markers[0],
        "document_prompt": markers[1],
        "query_length": metadata.get("query_maxlen", 32),
        "document_length": metadata.get("doc_maxlen", 220),
        "query_expansion": True,
        "attend_to_expansion": metadata.get("attend_to_mask_tokens", False),
        "skiplist": PUNCTUATION if metadata.get("mask_punctuation", True) else (),
    }
    return LateLayout(None, settings, {"projection.weight": projection})


def write_late_layout(folder: Path, contract: LateInteractionContract, heads: TokenHeads) -> None:
    """Write the files beside the transformer: PyLate's where it can express the model, else our own."""
    write_contract(folder, "late_interaction", contract)
    if not contract.is_portable:
        write_weights(folder / HEADS_FILE, heads.state_dict())
        return
    start = sum(heads.head_dims[: heads.head_dims.index(contract.dim)])
    projection = linear_layer(heads.projection.weight[start : start + contract.dim]).float()
    write_projection(folder / "1_Dense", projection, use_residual=False)
    types = {"": "sentence_transformers.models.Transformer", "1_Dense": "pylate.models.Dense.Dense"}
    write_modules(folder, types)
    write_length(folder, contract.document_length)
    write_json(folder / "config_sentence_transformers.json", _pylate_settings(contract))


def _pylate_settings(contract: LateInteractionContract) -> Settings:
    markers = dict(zip(("query", "document"), contract.markers or ("", ""), strict=True))
    prompts = {
        side: contract.prompt(side).removeprefix(markers[side])  # type: ignore[arg-type]
        for side in markers
    }
    return settings_of("ColBERT", "MaxSim") | {
        "prompts": {side: prompt for side, prompt in prompts.items() if prompt},
        "query_prefix": markers["query"],
        "document_prefix": markers["document"],
        "query_length": contract.query_length,
        "document_length": contract.document_length,
        "do_query_expansion": contract.query_expansion,
        "attend_to_expansion_tokens": contract.attend_to_expansion,
        "skiplist_words": list(contract.skiplist),
    }
