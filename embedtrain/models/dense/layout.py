"""Folder layouts of dense models on disk: what sentence-transformers and plain transformers folders say.

We write the *legacy* sentence-transformers layout: version 5 and 6, text-embeddings-inference and vLLM all
read it, while the layout that version 6 writes itself is misread by older readers.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast, get_args

import torch
import transformers
from pydantic import BaseModel, ValidationError
from torch import nn

from embedtrain.contract.texts import Contract, Pooling
from embedtrain.errors import UserError
from embedtrain.models.backbone.files import (
    read_json,
    read_projection,
    write_json,
    write_projection,
)
from embedtrain.models.dense.attention_pooling import AttentionPoolingConfig
from embedtrain.models.dense.layer_pooling import LayerPoolingConfig
from embedtrain.models.dense.pair_head import InteractionConfig
from embedtrain.models.dense.query_gate import QueryGateConfig
from embedtrain.models.dense.word_coordinates import WordsConfig
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
Part = TypeVar("Part", bound=BaseModel)
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
    words: WordsConfig | None = None
    layer_pooling: LayerPoolingConfig | None = None
    query_gate: QueryGateConfig | None = None
    attention_pooling: AttentionPoolingConfig | None = None
    interaction: InteractionConfig | None = None
    truncate_dim: int | None = None


def read_layout(folder: Path) -> Layout:
    """Read how a model folder wants to be used.

    Raises:
        UserError: If it holds modules that a dense encoder cannot express, or files that are not valid.
    """
    contract = None
    if (folder / CONTRACT_FILE).is_file():
        try:
            contract = Contract.model_validate(read_json(folder / CONTRACT_FILE)["contract"])
        except (ValidationError, KeyError) as error:
            raise UserError(
                folder / CONTRACT_FILE, "is not a contract", got=str(error).splitlines()[0]
            ) from error
    if not (folder / "modules.json").is_file():
        return Layout(contract=contract)
    if is_own_layout(folder):
        return _read_unified(folder, contract)
    pooling, projection, normalized = _read_modules(folder)
    settings = read_json(folder / "config_sentence_transformers.json", optional=True)
    named = settings.get("similarity_fn_name")
    return Layout(
        contract=contract,
        pooling=pooling,
        similarity="cosine" if normalized or named in (None, "cosine") else "dot",
        prompts={
            key: text for key, text in (settings.get("prompts") or {}).items() if text is not None
        },
        max_length=read_json(folder / "sentence_bert_config.json", optional=True).get(
            "max_seq_length"
        ),
        projection=projection,
        truncate_dim=settings.get("truncate_dim"),
    )


def write_layout(
    folder: Path,
    contract: Contract,
    width: int,
    projection: nn.Linear | None,
    truncate_dim: int | None = None,
) -> None:
    """Write the files beside the transformer that tell readers how to use it.

    Args:
        folder: Where the transformer and tokenizer were saved.
        contract: Pooling, similarity, prompts and lengths. Readers know one length only and get the longer.
        width: Dimension of the token states.
        projection: A linear layer after pooling, or None.
        truncate_dim: How many of the trained dimensions it keeps, where it drops some. Readers need not obey
            it: the projection gives no more.
    """
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_sqrt_len_tokens": False}
    pooling |= {key: name == contract.pooling for name, key in LEGACY_POOLING.items()}
    write_json(folder / "1_Pooling" / "config.json", pooling | {"include_prompt": True})
    if projection is not None:
        modules.append(("Dense", "2_Dense"))
        write_projection(folder / "2_Dense", projection)
    if contract.similarity == "cosine":
        name = f"{len(modules)}_Normalize"
        modules.append(("Normalize", name))
        # Git and the Hub drop empty folders, and some readers look for it.
        write_json(folder / name / "config.json", {})
    write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(modules)
        ],
    )
    length = max(contract.query_length, contract.document_length)
    write_json(
        folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False}
    )
    truncated = {} if truncate_dim is None else {"truncate_dim": truncate_dim}
    versions = {"sentence_transformers": "5.0.0", "transformers": transformers.__version__}
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "SentenceTransformer",
            "__version__": versions | {"pytorch": torch.__version__},
            "prompts": {
                "query": contract.query_prompt,
                "document": contract.document_prompt,
                **{name: prompts.query for name, prompts in contract.instructions.items()},
            },
            "default_prompt_name": None,
            "similarity_fn_name": contract.similarity,
            **truncated,
        },
    )
    write_json(folder / CONTRACT_FILE, {"kind": "dense", "contract": contract.model_dump()})


def _read_modules(folder: Path) -> tuple[Pooling | None, nn.Linear | None, bool]:
    """Return what sentence-transformers' modules say: pooling, projection, and whether vectors are normalised."""
    pooling, projection, normalized = None, None, False
    for module in read_json(folder / "modules.json"):
        kind = module["type"].rsplit(".", 1)[-1]
        if kind == "Pooling":
            pooling = _read_pooling(folder / module["path"] / "config.json")
        elif kind == "Dense":
            if projection is not None:
                raise UserError(
                    folder / "modules.json", "names two projections, which is not offered"
                )
            projection = read_projection(folder / module["path"])
        elif kind == "Normalize":
            normalized = True
        elif kind not in ("Transformer", "StaticEmbedding"):
            raise UserError(
                folder / "modules.json", "names a module a dense encoder has no use for", got=kind
            )
    return pooling, projection, normalized


def is_own_layout(folder: Path) -> bool:
    """Whether a folder holds a dense model that sentence-transformers cannot express."""
    modules = read_json(folder / "modules.json", optional=True)
    return any(module["type"] == UNIFIED for module in modules)


def write_own_layout(
    folder: Path, contract: Contract, projection: nn.Linear | None, **parts: BaseModel | None
) -> None:
    """Write what only embedtrain reads, such as a vector with coordinates for words.

    sentence-transformers has no module for it and would load the rest as another model without a word; the
    name in ``modules.json`` makes it stop instead. ``parts`` are the configs of what is stored beside.
    """
    if projection is not None:
        write_projection(folder / "projection", projection)
    modules = [{"idx": 0, "name": "0", "path": "", "type": UNIFIED}]
    write_json(folder / "modules.json", modules)
    content = {"kind": "dense", "contract": contract.model_dump()}
    content |= {name: part.model_dump() for name, part in parts.items() if part is not None}
    write_json(folder / CONTRACT_FILE, content)


def _read_unified(folder: Path, contract: Contract | None) -> Layout:
    content = read_json(folder / CONTRACT_FILE)
    place = folder / "projection"

    def part(name: str, kind: type[Part]) -> Part | None:
        return None if content.get(name) is None else kind.model_validate(content[name])

    return Layout(
        contract=contract,
        projection=read_projection(place) if place.is_dir() else None,
        words=part("words", WordsConfig),
        layer_pooling=part("layer_pooling", LayerPoolingConfig),
        query_gate=part("query_gate", QueryGateConfig),
        attention_pooling=part("attention_pooling", AttentionPoolingConfig),
        interaction=part("interaction", InteractionConfig),
    )


def _read_pooling(path: Path) -> Pooling:
    config = read_json(path)
    if "pooling_mode" in config:
        modes = [NATIVE_POOLING.get(config["pooling_mode"], config["pooling_mode"])]
    else:
        known = {key: name for name, key in LEGACY_POOLING.items()}
        flags = [key for key, value in config.items() if key.startswith("pooling_mode") and value]
        modes = [known.get(key, key) for key in flags]
    if len(modes) != 1 or modes[0] not in get_args(Pooling):
        raise UserError(
            path,
            "names a pooling that is not offered",
            got=modes,
            cure=f"Use one of {get_args(Pooling)}",
        )
    if config.get("include_prompt") is False:
        raise UserError(path, "leaves the prompt out of the pooling, which is not offered")
    return cast("Pooling", modes[0])
