"""Folder layouts of sparse models: sentence-transformers' SparseEncoder and our own.

We write the *legacy* layout, whose modules version 5 and 6 both know, and a ``Router`` where queries have static weights.
A model that it cannot express is written with its backbone in a folder of its own, so that no reader takes it for
something simpler.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from embedtrain.contract.sparse_contract import Activation, SparseContract
from embedtrain.errors import UserError
from embedtrain.files import write_json
from embedtrain.models.backbone.fetching import (
    OWN_FOLDER,
    read_modules,
    read_route,
    transformer_folder,
)
from embedtrain.models.backbone.files import read_weights, write_modules, write_weights
from embedtrain.models.backbone.fit import WEIGHTS
from embedtrain.models.backbone.folder_files import (
    AutoEncoderFile,
    LengthFile,
    OwnFile,
    SettingsFile,
    SpladeFile,
    read_form,
)
from embedtrain.models.dense.layout import (
    CONTRACT_FILE,
    read_contract,
    settings_of,
    write_contract,
    write_length,
)

KIND = "SparseEncoder"
"""What sentence-transformers calls a sparse model."""
ACTIVATIONS: dict[str, Activation] = {"relu": "log1p", "log1p_relu": "log1p_twice"}
"""sentence-transformers names what precedes the logarithm."""
TRANSFORMERS: tuple[str, ...] = ("Transformer", "MLMTransformer")
CODE = "SparseAutoEncoder"
"""What sentence-transformers calls a code over dense vectors."""
BEFORE_CODE = ("Pooling", "Dense", "Normalize")
MODULES = "sentence_transformers.sparse_encoder.models"
STATIC_FOLDER = "query_0_SparseStaticEmbedding"
ROUTED = {
    "document_0_MLMTransformer": "MLMTransformer",
    "document_1_SpladePooling": "SpladePooling",
}


@dataclass(frozen=True)
class SparseLayout:
    """What a folder says; empty where it says nothing.

    ``settings`` are fields of the contract; ``query_weights`` are those of a model with static queries.
    """

    contract: SparseContract | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    query_weights: Tensor | None = None


def is_sparse(folder: Path) -> bool:
    """Whether a folder says of itself that it holds a sparse model, of whichever library."""
    if os.path.lexists(folder / CONTRACT_FILE):
        return read_form(folder / CONTRACT_FILE, OwnFile).kind == "sparse"
    return _settings(folder).model_type == KIND


def read_sparse_layout(folder: Path) -> SparseLayout:
    """Read how a folder wants its weights made.

    Raises:
        UserError: If it holds modules that cannot be expressed, or files that are not valid, or lacks the weights
            of queries that it says are static.
    """
    if not is_sparse(folder):
        return SparseLayout()
    contract = read_contract(folder, SparseContract)
    settings: dict[str, Any] = {}
    if (folder / OWN_FOLDER).is_dir():
        static = _static_weights(folder)
    else:
        said, static = _read_modules(folder)
        settings = said | _read_settings(folder)
    wanted = contract.static_queries if contract else settings.get("static_queries", False)
    if wanted and static is None:
        raise UserError(
            folder, "is missing the weights of its queries' tokens, as safetensors",
            cure="Copy the whole folder, or save it anew",
        )  # fmt: skip
    return SparseLayout(contract, settings, static)


def _settings(folder: Path) -> SettingsFile:
    return read_form(folder / "config_sentence_transformers.json", SettingsFile, optional=True)


def _read_settings(folder: Path) -> dict[str, Any]:
    settings = _settings(folder)
    if settings.similarity_fn_name not in (None, "dot", "dot_score"):
        raise UserError(
            folder / "config_sentence_transformers.json",
            "names a similarity that is not offered",
            got=settings.similarity_fn_name,
            cure="Use dot: the length of a sparse vector carries the weight of its terms",
        )
    place = transformer_folder(folder) / "sentence_bert_config.json"
    length = read_form(place, LengthFile, optional=True).max_seq_length
    prompts = settings.texts()
    said: dict[str, Any] = {
        f"{side}_prompt": prompts.get(side, "") for side in ("query", "document")
    }
    if length is not None:
        said |= {"query_length": length, "document_length": length}
    if settings.max_active_dims is not None:
        said |= dict.fromkeys(("query_top_k", "document_top_k"), settings.max_active_dims)
    return said


def _read_modules(folder: Path) -> tuple[dict[str, Any], Tensor | None]:
    """Return what the modules say of the weights, and those of static queries."""
    query, document = read_route(folder, "query"), read_route(folder, "document")
    said, static = _read_document_modules(folder, document or read_modules(folder)), None
    kinds = [name.rsplit(".", 1)[-1] for name, _ in query]
    if kinds == ["SparseStaticEmbedding"]:
        static = _static_weights(query[0][1])
        said["static_queries"] = True
    elif query != document:
        raise UserError(
            folder,
            "encodes queries by another transformer than documents, which is not offered",
            got=kinds,
        )
    return said, static


def _read_document_modules(folder: Path, modules: list[tuple[str, Path]]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    known: tuple[str, ...] = TRANSFORMERS
    if any(name.endswith(f".{CODE}") for name, _ in modules):
        known += BEFORE_CODE
    for name, place in modules:
        kind = name.rsplit(".", 1)[-1]
        if kind == CODE:
            said |= _read_code(place)
        elif kind == "SpladePooling":
            config = read_form(place / "config.json", SpladeFile)
            if config.pooling_strategy != "max" or config.activation_function not in ACTIVATIONS:
                raise UserError(
                    place,
                    "pools in a way that is not offered",
                    got=f"{config.pooling_strategy} of {config.activation_function}",
                    cure=f"Use max of {' or '.join(ACTIVATIONS)}; SPLADE of 2021 (v1) took sums",
                )
            said["activation"] = ACTIVATIONS[config.activation_function]
        elif kind not in known:
            raise UserError(
                folder / "modules.json", "names a module a sparse encoder has no use for", got=kind
            )
    if not said:
        raise UserError(
            folder / "modules.json", "names no SpladePooling", cure="Name it, with its folder"
        )
    return said


def _read_code(place: Path) -> dict[str, Any]:
    config = read_form(place / "config.json", AutoEncoderFile)
    if config.normalize:
        raise UserError(place, "normalises its input by its spread, which is not offered")
    return {"head": "code", "code": {"entries": config.hidden_dim, "kept": config.k}}


def _static_weights(folder: Path) -> Tensor | None:
    """Return the weights of a query's tokens, as either layout keeps them; None where there are none."""
    for name in ("query_weights.safetensors", WEIGHTS):
        if (folder / name).is_file():
            found = read_weights(folder / name).get("weight")
            if found is None or found.dim() != 1:
                raise UserError(folder / name, "holds no weight for each token of a query")
            return found
    return None


def write_sparse_layout(
    folder: Path, contract: SparseContract, dim: int, query_weights: Tensor | None
) -> None:
    """Write the files beside the transformer that tell readers how to use it, for models that they can express."""
    length = contract.document_length
    pooling = f"{MODULES}.SpladePooling"
    name = next(key for key, value in ACTIVATIONS.items() if value == contract.activation)
    config = {
        "pooling_strategy": "max",
        "activation_function": name,
        "word_embedding_dimension": dim,
    }
    if query_weights is None:
        length = max(length, contract.query_length)
        write_modules(folder, {"": f"{MODULES}.MLMTransformer", "1_SpladePooling": pooling})
        write_json(folder / "1_SpladePooling" / "config.json", config)
    else:
        write_modules(folder, {"": "sentence_transformers.models.Router"})
        types = {place: f"{MODULES}.{kind}" for place, kind in ROUTED.items()}
        routes = {"query": [STATIC_FOLDER], "document": list(ROUTED)}
        write_json(
            folder / "router_config.json",
            {
                "types": {STATIC_FOLDER: f"{MODULES}.SparseStaticEmbedding", **types},
                "structure": routes,
                "parameters": {"default_route": "document", "allow_empty_key": True},
            },
        )
        write_json(folder / list(ROUTED)[1] / "config.json", config)
        write_json(folder / STATIC_FOLDER / "config.json", {"frozen": False})
        write_weights(folder / STATIC_FOLDER / WEIGHTS, {"weight": query_weights})
    write_length(transformer_folder(folder), length)
    write_settings(folder, contract)
    write_contract(folder, "sparse", contract)


def write_settings(folder: Path, contract: SparseContract) -> None:
    """Write what sentence-transformers wants to know besides its modules."""
    settings = settings_of(KIND, "dot") | {
        "prompts": {"query": contract.query_prompt, "document": contract.document_prompt},
        "max_active_dims": contract.document_top_k,
    }
    write_json(folder / "config_sentence_transformers.json", settings)
