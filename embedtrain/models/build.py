"""From a config or a folder to an encoder that is ready to use."""

from pathlib import Path
from typing import Literal

from torch import nn

from embedtrain.errors import UserError
from embedtrain.models.backbone.fetching import fetch, static_folder
from embedtrain.models.backbone.loading import (
    Backbone,
    ensure_end_token,
    load_backbone,
    preferred_device,
    quiet_transformers,
)
from embedtrain.models.backbone.word_table import WordTable
from embedtrain.models.dense.attention_pooling import AttentionPooling
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.echo import refuse_no_room
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.dense.layer_pooling import LayerPooling
from embedtrain.models.dense.layout import (
    Layout,
    read_layout,
    write_layout,
    write_own_layout,
)
from embedtrain.models.dense.pair_head import InteractionHead
from embedtrain.models.dense.parts import (
    build_exits,
    build_language,
    build_query_gate,
    build_span_mlp,
    build_words,
    drop_layers,
)
from embedtrain.models.dense.resolving import resolve_contract
from embedtrain.models.encoder import Packing, TextEncoder
from embedtrain.models.exits import write_exit_heads
from embedtrain.models.late_interaction.build import (
    build_late_interaction,
    load_late_interaction,
    save_late_interaction,
)
from embedtrain.models.late_interaction.encoder import LateInteractionConfig, LateInteractionEncoder
from embedtrain.models.late_interaction.layout import is_late_interaction
from embedtrain.models.static.build import build_static, save_static

Accelerator = Literal["auto", "cpu", "gpu"]


EncoderConfig = DenseConfig | LateInteractionConfig


def build_encoder(config: EncoderConfig, accelerator: Accelerator = "auto") -> TextEncoder:
    """Load the backbone that a recipe names and put the encoder of its kind around it.

    What the recipe leaves null is taken from the backbone's folder, then from the defaults. The encoder is
    put on a GPU where there is one, unless ``accelerator`` says otherwise.
    """
    if isinstance(config, DenseConfig):
        return build_dense(config, accelerator)
    folder = fetch(config.backbone, with_code=config.trust_remote_code)
    return build_late_interaction(config, preferred_device(accelerator), folder)


def load_encoder(
    path: str, *, packing: Packing = "auto", instruction: str | None = None
) -> TextEncoder:
    """Load a model folder or Hub id as it says it is: one vector per text, or several.

    ``instruction`` names one of the contract's, whose prompts then take the place of the usual ones.
    """
    folder = fetch(path)
    if instruction is not None and is_late_interaction(folder):
        raise UserError("--instruction", "is for models with one vector per text")
    if is_late_interaction(folder):
        return load_late_interaction(path, folder, preferred_device("auto"), packing)
    model = load_dense(path, packing=packing)
    model.contract = model.contract.under(instruction)
    return model


def save_encoder(model: TextEncoder, folder: Path) -> None:
    """Write the encoder in the layout that other libraries load, where they can express it."""
    if isinstance(model, LateInteractionEncoder):
        save_late_interaction(model, folder)
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
    layout = read_layout(folder)
    language = build_language(config, layout)
    backbone = (
        language.backbone
        if language is not None
        else load_backbone(
            config.backbone,
            num_layers=config.num_layers,
            dropout=config.dropout,
            trust_remote_code=config.trust_remote_code,
            attention=config.attention,
            lora=config.lora,
        )
    )
    if config.kept_layers:
        drop_layers(config, backbone)
    contract = resolve_contract(config, layout, backbone)
    refuse_no_room(contract, backbone)
    if contract.pooling == "last_token":
        ensure_end_token(backbone.tokenizer)
    projection = layout.projection
    if config.projection is not None:
        projection = nn.Linear(backbone.width, config.projection, bias=False)
    encoder = DenseEncoder(
        backbone,
        contract,
        projection,
        packing=config.packing,
        learn_temperature=config.learn_temperature,
        words=build_words(config, layout, language),
        exits=build_exits(config, backbone),
        layer_pooling=_build_layer_pooling(config, layout, backbone),
    )
    encoder.query_gate = build_query_gate(config, layout, encoder, language)
    encoder.attention_pooling = _build_attention_pooling(config, layout, backbone)
    encoder.span_mlp = build_span_mlp(encoder, backbone)
    if (interaction := config.interaction or layout.interaction) is not None:
        encoder.interaction = InteractionHead(encoder.dim, interaction)
        encoder.interaction.load(backbone.folder)
    if config.pair_classes is not None:
        encoder.add_pair_classifier(config.pair_classes)
    if config.projection is None:
        encoder.truncate_dim = layout.truncate_dim
    return encoder.to(device)


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
    model.tokenizer.save_pretrained(folder)
    if not model.is_portable:
        _save_own(model, folder)
        return
    with quiet_transformers():
        model.backbone.save_pretrained(folder)
    width = model.backbone.config.hidden_size
    write_layout(folder, model.contract, width, model.projection, model.truncate_dim)
    if model.exits is not None:
        write_exit_heads(folder, model.exits)


def _save_own(model: DenseEncoder, folder: Path) -> None:
    """Write a model that sentence-transformers cannot express, so that it does not misread it."""
    words, gate = model.words, model.query_gate
    with quiet_transformers():
        if words is not None:
            words.save(folder)
        elif gate is not None and gate.language is not None:
            gate.language.model.save_pretrained(folder)
        else:
            model.backbone.save_pretrained(folder)
    parts = {
        "layer_pooling": model.layer_pooling,
        "query_gate": gate if model.gates_queries else None,
        "attention_pooling": model.attention_pooling,
        "interaction": model.interaction,
    }
    for part in (*parts.values(), model.span_mlp):
        if part is not None:
            part.save(folder)
    write_own_layout(
        folder,
        model.contract,
        model.projection,
        words=None if words is None else words.config,
        **{name: None if part is None else part.config for name, part in parts.items()},
    )


def _build_attention_pooling(
    config: DenseConfig, layout: Layout, backbone: Backbone
) -> AttentionPooling | None:
    """Return the pooling that the recipe asks for or the folder has."""
    wanted = config.attention_pooling or layout.attention_pooling
    if wanted is None:
        return None
    width = int(backbone.model.config.hidden_size)
    if width % wanted.num_heads:
        raise UserError(
            "model.attention_pooling.num_heads",
            f"must divide the backbone's width, {width}",
            got=wanted.num_heads,
            cure="Choose a divisor",
        )
    pooling = AttentionPooling(width, wanted)
    pooling.load(backbone.folder)
    return pooling


def _build_layer_pooling(
    config: DenseConfig, layout: Layout, backbone: Backbone
) -> LayerPooling | None:
    wanted = config.layer_pooling or layout.layer_pooling
    if wanted is None:
        return None
    pooling = LayerPooling(backbone.width, backbone.model.config.num_hidden_layers, wanted)
    pooling.load(backbone.folder)
    return pooling
