"""Parts of a dense encoder that its recipe asks for or its folder has."""

from torch import nn

from embedtrain.errors import UserError
from embedtrain.models.backbone.fetching import fetch
from embedtrain.models.backbone.language_head import (
    MaskedLanguageModel,
    has_language_head,
    load_masked_language_model,
)
from embedtrain.models.backbone.loading import Backbone
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.dense.layout import Layout
from embedtrain.models.dense.query_gate import QueryGate
from embedtrain.models.dense.span_pooling import SpanMlp
from embedtrain.models.dense.word_coordinates import WordPart
from embedtrain.models.exits import Exits, keep_layers, read_exit_heads


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


def build_language(config: DenseConfig, layout: Layout) -> MaskedLanguageModel | None:
    """Load the backbone with its masked-language head, where coordinates for words or a gate need it."""
    gate = config.query_gate or layout.query_gate
    if config.words or layout.words:
        place = "model.words"
    elif gate is not None and gate.kind == "clr":
        place = "model.query_gate"
    else:
        return None
    if not has_language_head(fetch(config.backbone)):
        raise UserError(
            place,
            "needs a backbone with a masked-language head",
            got=config.backbone,
            cure="Pre-train with dupmae or mlm, whose runs keep it",
        )
    for name in ("trust_remote_code", "attention", "lora"):
        if getattr(config, name):
            what = place.removeprefix("model.")
            raise UserError(f"model.{name}", f"does not go with {what}", cure="Leave it out")
    return load_masked_language_model(
        config.backbone, num_layers=config.num_layers, dropout=config.dropout
    )


def build_query_gate(
    config: DenseConfig,
    layout: Layout,
    encoder: DenseEncoder,
    language: MaskedLanguageModel | None,
) -> QueryGate | None:
    """Return the gate that the recipe asks for or the folder has."""
    wanted = config.query_gate or layout.query_gate
    if wanted is None:
        return None
    if encoder.contract.similarity != "cosine":
        raise UserError(
            "model.query_gate", "needs vectors that are normalised", cure="Set similarity: cosine"
        )
    gate = QueryGate(
        wanted,
        vocabulary=len(encoder.tokenizer) if language is None else len(language.weight),
        width=int(encoder.backbone.config.hidden_size),
        dim=encoder.dim,
        special_ids=list(encoder.tokenizer.all_special_ids),
        language=language,
    )
    gate.load(fetch(config.backbone))
    return gate


def build_span_mlp(encoder: DenseEncoder, backbone: Backbone) -> SpanMlp | None:
    """Return what transforms the vectors of spans, and refuse what spans do not go with."""
    contract = encoder.contract
    if contract.spans is None:
        return None
    if contract.pooling != "mean":
        raise UserError(
            "model.pooling", "must be mean with model.spans", got=contract.pooling,
            cure="Set pooling: mean",
        )  # fmt: skip
    parts = {
        "words": encoder.words,
        "exits": encoder.exits,
        "layer_pooling": encoder.layer_pooling,
        "query_gate": encoder.query_gate,
        "attention_pooling": encoder.attention_pooling,
    }
    other = next((name for name, part in parts.items() if part is not None), None)
    if other is not None:
        raise UserError("model.spans", f"does not go with {other}", cure="Drop one of them")
    if contract.spans == "mean":
        return None
    mlp = SpanMlp(backbone.width)
    mlp.load(backbone.folder)
    return mlp


def build_exits(config: DenseConfig, backbone: Backbone) -> Exits | None:
    """Return the layers that are trained besides the last, with the heads that the folder has for them."""
    stored = read_exit_heads(backbone.folder)
    layers = config.exits or tuple(stored)
    if not layers:
        return None
    total = backbone.model.config.num_hidden_layers
    if layers[-1] >= total:
        raise UserError(
            "model.exits",
            f"must lie below the last of the {total} layers",
            got=layers[-1],
            cure="The last layer is always trained: leave it out",
        )
    if config.exit_heads:
        assert config.projection is not None
        heads = [nn.Linear(backbone.width, config.projection, bias=False) for _ in layers]
        return Exits(layers, tuple(heads))
    return Exits(layers, tuple(stored[layer] for layer in layers if stored))


def build_words(
    config: DenseConfig, layout: Layout, language: MaskedLanguageModel | None
) -> WordPart | None:
    """Return the coordinates for words that the recipe asks for or the folder has."""
    wanted = config.words or layout.words
    if wanted is None:
        return None
    assert language is not None
    part = WordPart(language, wanted)
    part.load(fetch(config.backbone))
    return part
