"""From a config or a folder to an encoder that is ready to use."""

from pathlib import Path
from typing import Literal

from torch import nn

from embedtrain.errors import UserError
from embedtrain.models.backbone.fetching import fetch, static_folder
from embedtrain.models.backbone.loading import (
    Packing,
    ensure_end_token,
    load_backbone,
    preferred_device,
)
from embedtrain.models.backbone.named_adapters import FOLDER as ADAPTERS
from embedtrain.models.backbone.named_adapters import save_plain
from embedtrain.models.backbone.pretrained import quiet_transformers, save_tokenizer
from embedtrain.models.backbone.word_table import WordTable
from embedtrain.models.chosen_weights import train_only
from embedtrain.models.cross_encoder.build import (
    build_cross_encoder,
    load_cross_encoder,
    save_cross_encoder,
)
from embedtrain.models.cross_encoder.config import CrossEncoderConfig
from embedtrain.models.cross_encoder.encoder import CrossEncoderModel
from embedtrain.models.cross_encoder.resolving import is_cross_encoder
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.echo import refuse_no_room
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.dense.frames import ends_in_suffix, refuse_wrong_frames
from embedtrain.models.dense.late_chunking import LateChunkEncoder, chunk_late
from embedtrain.models.dense.layout import (
    PARTS,
    read_layout,
    write_layout,
    write_own_layout,
    write_pooling,
)
from embedtrain.models.dense.pair_head import refuse_interaction
from embedtrain.models.dense.parts import (
    add_parts,
    build_language,
    dense_encoder,
    drop_layers,
    with_adapters,
)
from embedtrain.models.dense.resolving import resolve_contract
from embedtrain.models.dense.situated import BASE, Situated, SituatedConfig
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.exits import write_exit_heads
from embedtrain.models.late_interaction.build import (
    build_late_interaction,
    load_late_interaction,
    save_late_interaction,
)
from embedtrain.models.late_interaction.config import LateInteractionConfig
from embedtrain.models.late_interaction.encoder import LateInteractionEncoder
from embedtrain.models.late_interaction.layout import is_late_interaction
from embedtrain.models.sparse.build import build_sparse, load_sparse, save_sparse
from embedtrain.models.sparse.config import SparseConfig
from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.models.sparse.layout import is_sparse
from embedtrain.models.sparse.vocabulary_head import VocabularyHead
from embedtrain.models.static.build import build_static, save_static
from embedtrain.models.text_model import TextModel

Accelerator = Literal["auto", "cpu", "gpu"]


EncoderConfig = DenseConfig | LateInteractionConfig | SparseConfig
ModelConfig = EncoderConfig | CrossEncoderConfig


def build_model(config: ModelConfig, accelerator: Accelerator = "auto") -> TextModel:
    """Load what a recipe names, an encoder or a cross-encoder; only what it trains wants gradients."""
    model: TextModel
    if isinstance(config, CrossEncoderConfig):
        model = build_cross_encoder(config, preferred_device(accelerator))
    else:
        model = build_encoder(config, accelerator)
    if isinstance(config.train, tuple):
        train_only(model, config.train)
    return model


def load_model(path: str) -> TextModel:
    """Load a model folder or Hub id as it says it is; a classifier is one of pairs where embedtrain wrote it."""
    return load_cross_encoder(path) if is_cross_encoder(fetch(path)) else load_encoder(path)


def adapted_part(model: TextModel) -> nn.Module:
    """Return what ``model.lora`` puts adapters into: the backbone, with its language head where that makes vectors."""
    head = model.head if isinstance(model, SparseEncoder) else None
    part: nn.Module = head.language.model if isinstance(head, VocabularyHead) else model.backbone
    return part


def save_model(model: TextModel, folder: Path) -> None:
    """Write a model in the layout that other libraries load, where they can express it."""
    if isinstance(model, CrossEncoderModel):
        save_cross_encoder(model, folder)
    else:
        assert isinstance(model, TextEncoder)
        save_encoder(model, folder)


def build_encoder(config: EncoderConfig, accelerator: Accelerator = "auto") -> TextEncoder:
    """Load the backbone that a recipe names and put the encoder of its kind around it.

    What the recipe leaves null is taken from the backbone's folder, then from the defaults. The encoder is
    put on a GPU where there is one, unless ``accelerator`` says otherwise.
    """
    if isinstance(config, DenseConfig):
        dense = build_dense(config, accelerator)
        return chunk_late(dense, dense.contract.late_chunks)
    if isinstance(config, SparseConfig):
        return build_sparse(config, preferred_device(accelerator))
    folder = fetch(config.backbone, with_code=config.trust_remote_code)
    return build_late_interaction(config, preferred_device(accelerator), folder)


def load_encoder(
    path: str, *, packing: Packing = "auto", instruction: str | None = None
) -> TextEncoder:
    """Load a model folder or Hub id as it says it is: one vector per text, several, or one of words.

    ``instruction`` names one of the contract's, whose prompts then take the place of the usual ones.
    """
    folder = fetch(path)
    if is_cross_encoder(folder):
        raise UserError(
            path,
            "is a cross-encoder, which reads queries and documents together and makes no vectors",
            cure="Use it to score, to mine or to rerank",
        )
    late, sparse = is_late_interaction(folder), is_sparse(folder)
    if instruction is not None and (late or sparse):
        raise UserError("--instruction", "is for dense models, with one vector per text")
    if late:
        return load_late_interaction(path, folder, preferred_device("auto"), packing)
    if sparse:
        return load_sparse(path, preferred_device("auto"), packing)
    model = load_dense(path, packing=packing)
    model.contract = model.contract.under(instruction)
    return chunk_late(model, model.contract.late_chunks)


def save_encoder(model: TextEncoder, folder: Path) -> None:
    """Write the encoder in the layout that other libraries load, where they can express it."""
    if isinstance(model, LateInteractionEncoder):
        save_late_interaction(model, folder)
    elif isinstance(model, SparseEncoder):
        save_sparse(model, folder)
    elif isinstance(model, LateChunkEncoder):
        save_dense(model.whole, folder)
    elif isinstance(model, DenseEncoder):
        save_dense(model, folder)
    else:
        raise TypeError(f"no layout for {type(model).__name__}")


def build_dense(config: DenseConfig, accelerator: Accelerator = "auto") -> DenseEncoder:
    """Load the backbone that a recipe names and put the encoder around it.

    What the recipe leaves null is taken from the backbone's folder, then from the defaults: mean pooling,
    cosine, no prompts, at most 512 tokens. The encoder is put on a GPU where there is one, unless
    ``accelerator`` says otherwise.
    """
    device = preferred_device(accelerator)
    folder = fetch(config.backbone, with_code=config.trust_remote_code)
    if static_folder(folder) is not None:
        return build_static(config).to(device)
    if is_sparse(folder):
        raise UserError(config.backbone, "is a sparse model", cure="Set model.kind: sparse")
    layout = read_layout(folder)
    stated = {k: v for k, v in layout.parts.items() if getattr(config, k) is None}
    config = with_adapters(config.model_copy(update=stated), layout)
    language = build_language(config)
    if language is not None:
        backbone = language.backbone
    else:
        backbone = load_backbone(
            config.backbone, config, trust_remote_code=config.trust_remote_code
        )
    if config.kept_layers:
        drop_layers(config, backbone)
    contract = resolve_contract(config, layout, backbone)
    refuse_no_room(contract, backbone)
    refuse_wrong_frames(contract, backbone)
    if contract.pooling == "last_token" and not ends_in_suffix(contract):
        ensure_end_token(backbone.tokenizer)
    encoder = dense_encoder(config, layout, backbone, contract)
    add_parts(encoder, config, backbone, language, layout)
    if config.situated is not None:
        kept = folder / BASE if "situated" in stated else None
        encoder.situated = _situated(config.situated, encoder, kept)
    return encoder.to(device)


def _situated(config: SituatedConfig, encoder: DenseEncoder, kept: Path | None) -> Situated:
    """Load the base that stands beside an encoder, from the encoder's folder where that has it."""
    base = load_dense(config.base if kept is None else str(kept))
    refuse_interaction(base, "model.situated.base")
    if {base.contract.similarity, encoder.contract.similarity} != {"cosine"}:
        raise UserError(
            "model.situated", "adds similarities of vectors that are normalised", got=config.base,
            cure="Set similarity: cosine, and name such a base",
        )  # fmt: skip
    return Situated(base, config)


def load_dense(path: str, *, packing: Packing = "auto") -> DenseEncoder:
    """Load an exported model, a sentence-transformers folder or a plain transformers folder or Hub id."""
    return build_dense(DenseConfig(backbone=path, packing=packing))


def save_dense(model: DenseEncoder, folder: Path) -> None:
    """Write the encoder in the layout that sentence-transformers and transformers load."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model.backbone, WordTable):
        save_static(model, folder)
        return
    model.use_padded_attention()  # the name of the packed attention means nothing to other readers
    backend = model.tokenizer.backend_tokenizer
    backend.no_truncation()  # left over from the last call; readers of the file would obey it
    backend.no_padding()
    contract, width = model.contract, model.backbone.config.hidden_size
    length = max(contract.query_length, contract.document_length)  # readers know one length only
    save_tokenizer(model.tokenizer, folder, length)
    if not model.is_portable:
        _save_own(model, folder)
        return
    with quiet_transformers():
        model.backbone.save_pretrained(folder)
    first = write_pooling(folder, contract.pooling, width, length)
    write_layout(folder, model.contract, first, model.projection, model.truncate_dim)
    if model.exits is not None:
        write_exit_heads(folder, model.exits)


def _save_own(model: DenseEncoder, folder: Path) -> None:
    """Write a model that sentence-transformers cannot express, so that it does not misread it."""
    parts = {name: getattr(model, name) for name in PARTS if name != "situated"}
    gate = model.query_gate
    if not model.gates_queries:
        parts["query_gate"] = None
    kept = {name: part for name, part in parts.items() if part is not None}
    with quiet_transformers():
        if model.adapters is not None:
            save_plain(model.backbone, folder)
            model.adapters.save(folder / ADAPTERS, "..")
        elif model.words is None:  # it saves the backbone with its head
            headed = gate is not None and gate.language
            (headed.model if headed else model.backbone).save_pretrained(folder)
        for part in (*kept.values(), model.span_mlp, model.placeholder):
            if part is not None:
                part.save(folder)
    configs = {name: part.config for name, part in kept.items()}
    if model.adapters is not None:
        configs["lora"] = model.adapters.config
    if model.situated is not None:
        assert isinstance(model.situated.base, DenseEncoder)
        save_dense(model.situated.base, folder / BASE)
        configs["situated"] = model.situated.config.model_copy(update={"base": BASE})
    write_own_layout(folder, model.contract, model.projection, configs)
