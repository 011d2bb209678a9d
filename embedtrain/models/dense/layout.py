"""Folder layouts of dense models on disk: what sentence-transformers and plain transformers folders say.

We write the *legacy* sentence-transformers layout: version 5 and 6, text-embeddings-inference and vLLM all
read it, while the layout that version 6 writes itself is misread by older readers.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

import torch
import transformers
from pydantic import BaseModel
from torch import nn

from embedtrain.contract.texts import Contract, ModelContract, Pooling
from embedtrain.errors import UserError
from embedtrain.files import write_json
from embedtrain.models.backbone.fetching import read_modules
from embedtrain.models.backbone.files import (
    as_one,
    read_projection,
    write_modules,
    write_projection,
)
from embedtrain.models.backbone.folder_files import (
    LengthFile,
    OwnFile,
    PoolingFile,
    SettingsFile,
    checked,
    read_form,
)
from embedtrain.models.backbone.long_positions import AnyContractT
from embedtrain.models.backbone.lora import LoraConfig
from embedtrain.models.backbone.named_adapters import stored_in
from embedtrain.models.dense.attention_pooling import AttentionPoolingConfig
from embedtrain.models.dense.decoder_pooling import DecoderPoolingConfig
from embedtrain.models.dense.layer_pooling import LayerPoolingConfig
from embedtrain.models.dense.pair_head import InteractionConfig
from embedtrain.models.dense.query_gate import QueryGateConfig
from embedtrain.models.dense.query_head import QueryCodesConfig, QueryNetworkConfig
from embedtrain.models.dense.situated import SituatedConfig
from embedtrain.models.dense.value_spans import ValueSpansConfig
from embedtrain.models.dense.word_coordinates import WordsConfig
from embedtrain.outside import reading
from embedtrain.types import Similarity

CONTRACT_FILE = "embedtrain.json"
LEGACY_POOLING: dict[Pooling, str] = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "weighted_mean": "pooling_mode_weightedmean_tokens",
    "last_token": "pooling_mode_lasttoken",
}
NATIVE_POOLING: dict[str, Pooling] = {
    "cls": "cls",
    "mean": "mean",
    "max": "max",
    "weightedmean": "weighted_mean",
    "lasttoken": "last_token",
}
PARTS: dict[str, type[BaseModel]] = {
    "words": WordsConfig,
    "layer_pooling": LayerPoolingConfig,
    "query_gate": QueryGateConfig,
    "attention_pooling": AttentionPoolingConfig,
    "decoder_pooling": DecoderPoolingConfig,
    "interaction": InteractionConfig,
    "value_spans": ValueSpansConfig,
    "query_network": QueryNetworkConfig,
    "query_codes": QueryCodesConfig,
    "situated": SituatedConfig,
}
"""Sections of a recipe's model that a folder may state as well, beside the contract."""
DEFAULT_LENGTH = 512
UNIFIED = "embedtrain.UnifiedEmbedding"
"""What ``modules.json`` names where a vector has coordinates for words; no such class can be imported."""


@dataclass(frozen=True)
class Layout:
    """What a folder says about the use of its model; None where it says nothing."""

    contract: Contract | None = None
    pooling: Pooling | None = None
    similarity: Similarity | None = None
    prompts: dict[str, str] | None = None
    max_length: int | None = None
    projection: nn.Linear | None = None
    truncate_dim: int | None = None
    parts: dict[str, Any] = field(default_factory=dict)
    """Of :data:`PARTS`, those that the folder has."""
    lora: LoraConfig | None = None
    """Several adapters that the folder has."""


def read_layout(folder: Path) -> Layout:
    """Read how a model folder wants to be used.

    Raises:
        UserError: If it holds modules that a dense encoder cannot express, or files that are not valid.
    """
    contract = read_contract(folder, Contract)
    if not os.path.lexists(folder / "modules.json"):
        return Layout(contract=contract)
    if is_own_layout(folder):
        return _read_unified(folder, contract)
    pooling, projection, normalized = read_vector_modules(folder)
    path = folder / "config_sentence_transformers.json"
    settings = read_form(path, SettingsFile, optional=True)
    named = settings.similarity_fn_name
    if not normalized and named not in (None, "cosine", "dot", "dot_score"):
        raise UserError(
            path, "names a similarity that is not offered", got=named, cure="Use cosine or dot"
        )
    length = read_form(folder / "sentence_bert_config.json", LengthFile, optional=True)
    return Layout(
        contract=contract,
        pooling=pooling,
        similarity="cosine" if normalized or named in (None, "cosine") else "dot",
        prompts=settings.texts(),
        max_length=length.max_seq_length,
        projection=projection,
        truncate_dim=settings.truncate_dim,
    )


def read_contract(folder: Path, form: type[AnyContractT]) -> AnyContractT | None:
    """Return the contract of a folder, None if it states none.

    Raises:
        UserError: If it is not one of this form.
    """
    path = folder / CONTRACT_FILE
    if not os.path.lexists(path):
        return None
    stated = read_form(path, OwnFile).contract
    found: AnyContractT = checked(f"{path}: contract", form, stated)
    return found


def write_contract(folder: Path, kind: str, contract: ModelContract, **parts: object) -> None:
    """Write the kind of a model and its contract, with the configs of ``parts`` stored beside."""
    content = {"kind": kind, "contract": contract.model_dump(mode="json")}
    write_json(folder / CONTRACT_FILE, content | parts)


def write_layout(
    folder: Path,
    contract: Contract,
    first: dict[str, str],
    projection: nn.Linear | None,
    truncate_dim: int | None = None,
) -> None:
    """Write the files beside the transformer that tell readers how to use it.

    Args:
        folder: Where the transformer and tokenizer were saved.
        contract: Pooling, similarity and prompts.
        first: The modules that give one vector per text, by their folders.
        projection: A linear layer after pooling, or None.
        truncate_dim: How many of the trained dimensions it keeps, where it drops some. Readers need not obey
            it: the projection gives no more.
    """
    write_modules(
        folder,
        finish_modules(folder, first, projection, normalized=contract.similarity == "cosine"),
    )
    prompts = {"query": contract.query_prompt, "document": contract.document_prompt}
    settings = settings_of("SentenceTransformer", contract.similarity) | {
        "prompts": prompts | {name: task.query for name, task in contract.instructions.items()}
    }
    if truncate_dim is not None:
        settings["truncate_dim"] = truncate_dim
    write_json(folder / "config_sentence_transformers.json", settings)
    write_contract(folder, "dense", contract)


def finish_modules(
    folder: Path, first: dict[str, str], projection: nn.Linear | None, *, normalized: bool
) -> dict[str, str]:
    """Write what follows pooling; return the types of all modules by their folders."""
    modules = dict(first)
    if projection is not None:
        modules[name := f"{len(modules)}_Dense"] = "Dense"
        write_projection(folder / name, projection)
    if normalized:
        modules[name := f"{len(modules)}_Normalize"] = "Normalize"
        # Git and the Hub drop empty folders, and some readers look for it.
        write_json(folder / name / "config.json", {})
    return {path: f"sentence_transformers.models.{kind}" for path, kind in modules.items()}


def settings_of(model_type: str, similarity: str) -> dict[str, Any]:
    """Return what sentence-transformers' settings say of every model."""
    versions = {"sentence_transformers": "5.0.0", "transformers": transformers.__version__}
    return {
        "model_type": model_type,
        "__version__": versions | {"pytorch": torch.__version__},
        "default_prompt_name": None,
        "similarity_fn_name": similarity,
    }


def write_pooling(folder: Path, way: Pooling, width: int, length: int) -> dict[str, str]:
    """Write how token states of ``width`` are pooled, of ``length`` tokens; return the modules that do it."""
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_sqrt_len_tokens": False}
    pooling |= {key: name == way for name, key in LEGACY_POOLING.items()}
    write_json(folder / "1_Pooling" / "config.json", pooling | {"include_prompt": True})
    write_length(folder, length)
    return {"": "Transformer", "1_Pooling": "Pooling"}


def write_length(folder: Path, length: int) -> None:
    """Write how many tokens of a text readers keep."""
    settings = {"max_seq_length": length, "do_lower_case": False}
    write_json(folder / "sentence_bert_config.json", settings)


def read_vector_modules(
    folder: Path, beside: tuple[str, ...] = ()
) -> tuple[Pooling | None, nn.Linear | None, bool]:
    """Return what sentence-transformers' modules say: pooling, projection, and whether vectors are normalised.

    Modules of the kinds ``beside`` are of no concern here.

    Raises:
        UserError: If there are others.
    """
    pooling, projection, normalized = None, None, False
    path = folder / "modules.json"
    for name, place in read_modules(folder):
        kind = name.rsplit(".", 1)[-1]
        if kind == "Pooling":
            pooling = _read_pooling(place / "config.json")
        elif kind == "Dense":
            found = read_projection(place)
            projection = found if projection is None else as_one(projection, found, path)
        elif kind == "Normalize":
            normalized = True
        elif kind not in ("Transformer", "StaticEmbedding", *beside):
            raise UserError(path, "names a module a dense encoder has no use for", got=kind)
    return pooling, projection, normalized


def is_own_layout(folder: Path) -> bool:
    """Whether a folder holds a dense model that sentence-transformers cannot express."""
    return any(name == UNIFIED for name, _ in read_modules(folder))


def write_own_layout(
    folder: Path, contract: Contract, projection: nn.Linear | None, parts: dict[str, BaseModel]
) -> None:
    """Write what only embedtrain reads, such as a vector with coordinates for words.

    sentence-transformers has no module for it and would load the rest as another model without a word; the
    name in ``modules.json`` makes it stop instead. ``parts`` are the configs of what is stored beside.
    """
    if projection is not None:
        write_projection(folder / "projection", projection)
    write_modules(folder, {"": UNIFIED})
    stated = {name: part.model_dump() for name, part in parts.items()}
    write_contract(folder, "dense", contract, **stated)


def _read_unified(folder: Path, contract: Contract | None) -> Layout:
    path, place = folder / CONTRACT_FILE, folder / "projection"
    content = read_form(path, OwnFile)
    said = content.part("lora")
    lora = None if said is None else checked(f"{path}: lora", LoraConfig, said)
    return Layout(
        contract=contract,
        projection=read_projection(place) if place.is_dir() else None,
        lora=lora and stored_in(folder, lora),
        parts={
            name: checked(f"{path}: {name}", form, content.part(name))
            for name, form in PARTS.items()
            if content.part(name) is not None
        },
    )


def _read_pooling(path: Path) -> Pooling:
    config = read_form(path, PoolingFile)
    known = {key: name for name, key in LEGACY_POOLING.items()}
    with reading(path):
        modes = [known.get(mode, NATIVE_POOLING.get(mode, mode)) for mode in config.modes()]
    if len(modes) != 1 or modes[0] not in get_args(Pooling):
        raise UserError(
            path,
            "names a pooling that is not offered",
            got=modes,
            cure=f"Use one of {get_args(Pooling)}",
        )
    if not config.include_prompt:
        raise UserError(path, "leaves the prompt out of the pooling, which is not offered")
    return cast("Pooling", modes[0])
