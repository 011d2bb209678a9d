"""Folder layouts of late-interaction models: PyLate, sentence-transformers, Stanford ColBERT and our own.

We write PyLate's layout: PyLate and sentence-transformers 6 both load it with the same vectors, while what
sentence-transformers writes itself PyLate cannot load. A model that PyLate cannot express is written with
its backbone in a folder of its own, so that no reader takes it for something simpler.
"""

import os
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from embedtrain.contract.late_contract import LateInteractionContract
from embedtrain.errors import UserError
from embedtrain.files import write_json
from embedtrain.models.backbone.fetching import read_modules
from embedtrain.models.backbone.files import (
    linear_layer,
    read_projection,
    read_weights,
    refuse_tanh,
    write_modules,
    write_projection,
    write_weights,
)
from embedtrain.models.backbone.fit import WEIGHTS, Stored, read_header, refuse_not_finite
from embedtrain.models.backbone.folder_files import (
    BackboneFile,
    DenseFile,
    LengthFile,
    MaskFile,
    OwnFile,
    SettingsFile,
    StanfordFile,
    TokenPoolingFile,
    read_form,
)
from embedtrain.models.dense.layout import (
    CONTRACT_FILE,
    read_contract,
    settings_of,
    write_contract,
    write_length,
)
from embedtrain.models.late_interaction.token_heads import TokenHeads
from embedtrain.outside import reading

HEADS_FILE = "heads.safetensors"
PUNCTUATION = tuple(string.punctuation)
KINDS = ("ColBERT", "MultiVectorEncoder")
"""What PyLate and sentence-transformers call late interaction."""
NOTHING = Stored((), "F32")
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
    if os.path.lexists(folder / CONTRACT_FILE):
        return read_form(folder / CONTRACT_FILE, OwnFile).kind == "late_interaction"
    return _settings(folder).model_type in KINDS or _is_stanford(folder)


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
    settings = _settings(folder)
    if settings.model_type not in KINDS:
        return LateLayout(contract, {}, {})
    said, heads = _read_modules(folder)
    native = settings.model_type == "MultiVectorEncoder"
    said |= _read_native(folder, settings) if native else _read_pylate(settings)
    return LateLayout(contract, said, heads)


def _settings(folder: Path) -> SettingsFile:
    return read_form(folder / "config_sentence_transformers.json", SettingsFile, optional=True)


def _read_modules(folder: Path) -> tuple[Settings, dict[str, Tensor]]:
    settings: Settings = {"similarity": "cosine"}
    heads: dict[str, Tensor] = {}
    for name, path in read_modules(folder):
        kind, config = name.rsplit(".", 1)[-1], path / "config.json"
        if kind == "Dense":
            if heads or read_form(config, DenseFile).use_residual:
                raise UserError(path, "is a second or residual projection, which is not offered")
            projection = read_projection(path)
            refuse_tanh(projection, path)
            if projection.bias is not None:
                raise UserError(path, "is a projection with a bias, which is not offered")
            heads["projection.weight"] = projection.weight.detach()
        elif kind == "MultiVectorMask":
            mask = read_form(config, MaskFile, optional=True)
            if mask.keep_only_token_ids:
                raise UserError(path, "keeps image tokens only, which is not offered")
            settings["skiplist"] = tuple(mask.skiplist_words or ())
        elif kind == "HierarchicalTokenPooling":
            settings["pool_factor"] = read_form(config, TokenPoolingFile).pool_factor
        elif kind not in ("Transformer", "Normalize"):
            raise UserError(
                folder / "modules.json", "names a module late interaction has no use for", got=kind
            )
    if not heads:
        cure = "Name its Dense module, with its folder"
        raise UserError(folder / "modules.json", "names no projection of the tokens", cure=cure)
    return settings, heads


def _read_pylate(settings: SettingsFile) -> Settings:
    markers, prompts = (
        (settings.query_prefix or "", settings.document_prefix or ""),
        settings.texts(),
    )
    said: Settings = {
        "markers": markers,
        "query_prompt": markers[0] + prompts.get("query", ""),
        "document_prompt": markers[1] + prompts.get("document", ""),
        "query_expansion": settings.do_query_expansion,
        "attend_to_expansion": settings.attend_to_expansion_tokens or False,
        "skiplist": PUNCTUATION,
    }
    if settings.skiplist_words is not None:
        said["skiplist"] = tuple(settings.skiplist_words)
    lengths = {"query_length": settings.query_length, "document_length": settings.document_length}
    return said | {key: value for key, value in lengths.items() if value}


def _read_native(folder: Path, settings: SettingsFile) -> Settings:
    length = read_form(folder / "sentence_bert_config.json", LengthFile, optional=True)
    expansion, prompts = length.query_expansion, settings.texts()
    if expansion is not None and expansion.strategy != "fixed":
        raise UserError(
            folder,
            "expands queries to a minimum length, which is not offered",
            got=expansion.model_dump(),
        )
    said: Settings = {
        "markers": (),
        "query_prompt": prompts.get("query", ""),
        "document_prompt": prompts.get("document", ""),
        "query_expansion": expansion is not None,
        "attend_to_expansion": expansion is not None and bool(expansion.attend),
    }
    lengths = {
        "query_length": (expansion and expansion.length) or length.query_length,
        "document_length": length.document_length or length.max_seq_length,
    }
    return said | {key: value for key, value in lengths.items() if value}


def _is_stanford(folder: Path) -> bool:
    config = read_form(folder / "config.json", BackboneFile, optional=True)
    return "HF_ColBERT" in (config.architectures or ())


def _read_stanford(folder: Path) -> LateLayout:
    metadata = read_form(folder / "artifact.metadata", StanfordFile, optional=True)
    path = folder / WEIGHTS
    if not path.is_file():
        cure = "Save the weights as safetensors; no pickle is loaded"
        raise UserError(folder, f"has no {WEIGHTS}", cure=cure)
    if len(read_header(path).get(name := "linear.weight", NOTHING).shape) != 2:
        raise UserError(path, f"lacks ColBERT's {name}")
    with reading(path), safe_open(path, framework="pt") as weights:
        projection = weights.get_tensor(name)
    refuse_not_finite(path, [(name, projection)])
    markers = metadata.query_token_id, metadata.doc_token_id
    settings = {
        "similarity": "cosine",
        "markers": markers,
        "query_prompt": markers[0],
        "document_prompt": markers[1],
        "query_length": metadata.query_maxlen,
        "document_length": metadata.doc_maxlen,
        "query_expansion": True,
        "attend_to_expansion": metadata.attend_to_mask_tokens,
        "skiplist": PUNCTUATION if metadata.mask_punctuation else (),
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
