"""Parts of a dense encoder that its recipe asks for or its folder has."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from torch import nn

from embedtrain.contract.texts import Contract
from embedtrain.errors import UserError
from embedtrain.models.backbone.fetching import fetch
from embedtrain.models.backbone.files import TanhLinear
from embedtrain.models.backbone.language_head import (
    MaskedLanguageModel,
    has_language_head,
    load_masked_language_model,
)
from embedtrain.models.backbone.loading import Backbone
from embedtrain.models.backbone.named_adapters import NamedAdapters
from embedtrain.models.dense.attention_pooling import AttentionPooling
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.contrast_head import ContrastHead
from embedtrain.models.dense.decoder_pooling import DecoderPooling
from embedtrain.models.dense.echo import Placeholder
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.dense.layer_pooling import build_layer_pooling
from embedtrain.models.dense.layout import Layout
from embedtrain.models.dense.pair_head import build_pair_head
from embedtrain.models.dense.query_gate import QueryGate, QueryGateConfig
from embedtrain.models.dense.query_head import CodesHead, NetworkHead
from embedtrain.models.dense.span_pooling import SpanMlp
from embedtrain.models.dense.value_spans import ValueSpans
from embedtrain.models.dense.word_coordinates import WordPart
from embedtrain.models.dense.word_head import WordHead
from embedtrain.models.exits import Exits, check_exits, keep_layers, read_exit_heads
from embedtrain.models.saved_part import SavedPart, restored
from embedtrain.models.value_vectors import value_width

Part = TypeVar("Part", bound=SavedPart)


def drop_layers(config: DenseConfig, backbone: Backbone) -> None:
    """Keep the layers that the recipe names."""
    total = backbone.model.config.num_hidden_layers
    if config.kept_layers[-1] > total:
        raise UserError(
            "model.kept_layers",
            f"names more than the {total} layers of {config.backbone}",
            got=config.kept_layers,
            cure="Count from 1",
        )
    keep_layers(backbone.model, [layer - 1 for layer in config.kept_layers])


def with_adapters(config: DenseConfig, layout: Layout) -> DenseConfig:
    """Return the config with the adapters that the backbone's folder has, where it has several.

    Raises:
        UserError: If the recipe asks for other adapters over them.
    """
    if layout.lora is None:
        return config
    if config.lora is not None:
        raise UserError(
            "model.lora",
            f"would stand on the adapters that {config.backbone} has already",
            got=", ".join(layout.lora.names),
            cure="Leave it out, which trains these, or export one of them: `embedtrain export --instruction`",
        )
    return config.model_copy(update={"lora": layout.lora})


def build_language(config: DenseConfig) -> MaskedLanguageModel | None:
    """Load the backbone with its masked-language head, where coordinates for words, a gate or a word head need it."""
    if config.words is not None:
        what = "words"
    elif config.query_gate is not None and config.query_gate.kind == "clr":
        what = "query_gate"
    elif config.word_head:
        what = "word_head"
    else:
        return None
    if not has_language_head(fetch(config.backbone)):
        raise UserError(
            f"model.{what}",
            "needs a backbone with a masked-language head",
            got=config.backbone,
            cure="Pre-train with dupmae or mlm, whose runs keep it",
        )
    for name in ("trust_remote_code", "attention", "lora", "train"):
        if getattr(config, name):
            raise UserError(f"model.{name}", f"does not go with {what}", cure="Leave it out")
    return load_masked_language_model(config.backbone, config)


def dense_encoder(
    config: DenseConfig, layout: Layout, backbone: Backbone, contract: Contract
) -> DenseEncoder:
    """Put an encoder around a backbone or a table, with the projection of the recipe or of the folder."""
    pooling, width = config.layer_pooling, backbone.width
    width = width if pooling is None else pooling.width_of(width)
    projection = layout.projection
    if projection is not None and projection.in_features != width:
        raise UserError(
            backbone.folder,
            f"has a projection for another width than its backbone's {width}",
            got=projection.in_features,
            cure="Take both from one place",
        )
    if config.projection is not None:
        kind = nn.Linear if config.projection_activation is None else TanhLinear
        projection = kind(width, config.projection, bias=False)
    encoder = DenseEncoder(
        backbone,
        contract,
        projection,
        packing=config.packing,
        learn_temperature=config.learn_temperature,
    )
    if config.projection is None:
        encoder.truncate_dim = layout.truncate_dim
    if config.lora is not None and config.lora.adapters:
        encoder.adapters = NamedAdapters(backbone.model, config.lora)
    if config.pair_classes is not None:
        encoder.add_pair_classifier(config.pair_classes)
    return encoder


def add_parts(
    encoder: DenseEncoder,
    config: DenseConfig,
    backbone: Backbone,
    language: MaskedLanguageModel | None,
    layout: Layout,
) -> None:
    """Give an encoder the parts that ``config`` asks for, with the weights that the backbone's folder has of them.

    Raises:
        UserError: If a part does not fit the backbone, or another part, or the folder lacks weights of a part
            that it says it has.
    """
    width, layers = backbone.width, int(backbone.model.config.num_hidden_layers)

    def part(name: str, make: Callable[[], Part]) -> Part:
        return restored(make, backbone.folder, required=name in layout.parts)

    if config.words is not None:
        assert language is not None
        encoder.words = part("words", partial(WordPart, language, config.words))
    encoder.word_head = _build_word_head(config, encoder, language)
    encoder.exits = _build_exits(config, backbone, layers)
    if config.layer_pooling is not None:
        make = partial(build_layer_pooling, width, layers, config.layer_pooling)
        encoder.layer_pooling = part("layer_pooling", make)
    if config.query_gate is not None:
        gate = partial(_build_gate, config.query_gate, encoder, language)
        encoder.query_gate = part("query_gate", gate)
    if config.attention_pooling is not None:
        _refuse_heads(config.attention_pooling.num_heads, width)
        pooling = partial(AttentionPooling, width, config.attention_pooling)
        encoder.attention_pooling = part("attention_pooling", pooling)
    if config.decoder_pooling is not None:
        decoder = partial(DecoderPooling, backbone.model, config.decoder_pooling)
        encoder.decoder_pooling = part("decoder_pooling", decoder)
    encoder.placeholder = _build_placeholder(encoder, backbone, layout)
    encoder.span_mlp = _build_span_mlp(encoder, backbone, layout)
    if config.value_spans is not None:
        values = partial(ValueSpans, value_width(backbone.model), config.value_spans)
        encoder.value_spans = part("value_spans", values)
    if config.contrast_head is not None:
        encoder.contrast_head = ContrastHead(encoder.dim, config.contrast_head)
    if config.interaction is not None:
        head = partial(build_pair_head, encoder.dim, config.interaction)
        encoder.interaction = part("interaction", head)
    _add_query_head(encoder, config, backbone, layout)
    _refuse_several_frames(encoder)


def _add_query_head(
    encoder: DenseEncoder, config: DenseConfig, backbone: Backbone, layout: Layout
) -> None:
    sizes = backbone.width, encoder.dim
    if config.query_network is not None:
        network = partial(NetworkHead, *sizes, config.query_network)
        required = "query_network" in layout.parts
        encoder.query_network = restored(network, backbone.folder, required=required)
    if config.query_codes is not None:
        codes = partial(CodesHead, *sizes, config.query_codes)
        required = "query_codes" in layout.parts
        encoder.query_codes = restored(codes, backbone.folder, required=required)


def _refuse_heads(heads: int, width: int) -> None:
    if width % heads:
        problem = f"must divide the backbone's width, {width}"
        place = "model.attention_pooling.num_heads"
        raise UserError(place, problem, got=heads, cure="Choose a divisor")


def _build_placeholder(
    encoder: DenseEncoder, backbone: Backbone, layout: Layout
) -> Placeholder | None:
    """Return the random row that stands for a placeholder, where the contract wants one."""
    wish = encoder.contract.prepend
    if wish is None or wish.token != "random":
        return None
    known = None if layout.contract is None else layout.contract.prepend
    stated = known is not None and known.token == "random"
    words = backbone.model.get_input_embeddings().weight
    return restored(partial(Placeholder, words), backbone.folder, required=stated)


def _refuse_several_frames(encoder: DenseEncoder) -> None:
    """Refuse what a text of several frames does not go with."""
    framing = encoder.contract.framing
    if framing is None or not (framing.prompts or framing.contrast):
        return
    what = "prompts" if framing.prompts else "contrast"
    pooled = ("layer_pooling", "attention_pooling", "decoder_pooling")
    for name in ("words", "exits", "query_gate", "query_network", "query_codes", *pooled):
        if getattr(encoder, name) is not None:
            raise UserError(f"model.{what}", f"does not go with {name}", cure="Drop one of them")


def _build_word_head(
    config: DenseConfig, encoder: DenseEncoder, language: MaskedLanguageModel | None
) -> WordHead | None:
    if not config.word_head:
        return None
    assert language is not None
    if encoder.contract.similarity != "dot":
        cure = "Set model.similarity: dot"
        raise UserError("model.word_head", "needs vectors that are not normalised", cure=cure)
    return WordHead(language)


def _build_gate(
    config: QueryGateConfig, encoder: DenseEncoder, language: MaskedLanguageModel | None
) -> QueryGate:
    if encoder.contract.similarity != "cosine":
        raise UserError(
            "model.query_gate", "needs vectors that are normalised", cure="Set similarity: cosine"
        )
    return QueryGate(
        config,
        vocabulary=len(encoder.tokenizer) if language is None else len(language.weight),
        width=int(encoder.backbone.config.hidden_size),
        dim=encoder.dim,
        special_ids=list(encoder.tokenizer.all_special_ids),
        language=language,
    )


def _build_span_mlp(encoder: DenseEncoder, backbone: Backbone, layout: Layout) -> SpanMlp | None:
    """Return what transforms the vectors of spans, and refuse what spans do not go with."""
    contract = encoder.contract
    if contract.spans is None:
        return None
    if contract.framing is not None or contract.marks_text:
        raise UserError("model.spans", "does not go with a suffix or prompts", cure="Drop one")
    if contract.pooling != "mean" and contract.spans != "values":
        raise UserError(
            "model.pooling", "must be mean with model.spans", got=contract.pooling,
            cure="Set pooling: mean",
        )  # fmt: skip
    for name in (
        "words",
        "exits",
        "layer_pooling",
        "query_gate",
        "attention_pooling",
        "decoder_pooling",
    ):
        if getattr(encoder, name) is not None:
            raise UserError("model.spans", f"does not go with {name}", cure="Drop one of them")
    if contract.spans != "mlp":
        return None
    stated = layout.contract is not None and layout.contract.spans == "mlp"
    return restored(partial(SpanMlp, backbone.width), backbone.folder, required=stated)


def _build_exits(config: DenseConfig, backbone: Backbone, total: int) -> Exits | None:
    """Return the layers that are trained besides the last, with the heads that the folder has for them."""
    stored = read_exit_heads(backbone.folder)
    layers = config.exits or tuple(stored)
    if not layers:
        return None
    check_exits(layers, total)
    if config.exit_heads:
        assert config.projection is not None
        heads = [nn.Linear(backbone.width, config.projection, bias=False) for _ in layers]
        return Exits(layers, tuple(heads))
    return Exits(layers, tuple(stored[layer] for layer in layers if stored))
