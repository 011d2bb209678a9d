"""What some families of transformers need before they can be loaded: the encoder of an encoder-decoder, Gemma's switch."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import AutoModel, AutoModelForSeq2SeqLM, AutoModelForTextEncoding

from embedtrain.errors import UserError

WITH_DECODER = ("t5", "mt5", "umt5", "t5gemma")
"""Encoder-decoders whose encoder transformers has as a class of its own; it is what is loaded of them."""
ANSWERING = ("t5", "mt5", "umt5")
"""Encoder-decoders that are loaded whole where their answer is wanted."""
INCLUSIVE = "t5_gemma_module"
"""Whose window counts the tokens on either side, as that of decoders does that were told to look both ways."""
OF_ENCODER = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "head_dim", "intermediate_size",
    "max_position_embeddings", "sliding_window", "layer_types",
)  # fmt: skip
"""What T5Gemma's config says of its encoder one level below the place where all others say it."""


def loader_for(config: Any, loader: Any) -> Any:  # noqa: ANN401 - transformers is untyped
    """Return which of transformers' Auto classes loads a backbone: of an encoder-decoder, its encoder, unless it answers.

    Raises:
        UserError: If the family has no encoder of its own, or its encoder has no such head.
    """
    family = config.model_type
    if family in WITH_DECODER and loader is AutoModel:
        return AutoModelForTextEncoding
    if family in ANSWERING and loader is AutoModelForSeq2SeqLM:
        return loader
    if family in WITH_DECODER:
        raise UserError(
            "model.backbone",
            "is an encoder-decoder, whose encoder has no head of this kind",
            got=family,
            cure="Use it with model.kind: dense or late_interaction, or T5, mT5 or UMT5 with scorer: yes_no",
        )
    if is_whole(config):
        raise UserError(
            "model.backbone",
            "is an encoder-decoder of a family without an encoder of its own here",
            got=family,
            cure="Choose T5, mT5, UMT5 or T5Gemma",
        )
    return loader


def refuse_images(config: Any) -> None:  # noqa: ANN401 - transformers is untyped
    """Refuse a model whose config describes a reader of texts among others.

    Raises:
        UserError: If it is one.
    """
    if getattr(config, "text_config", None) is not None:
        raise UserError(
            "model.backbone",
            "reads more than texts, which is not offered",
            got=config.model_type,
            cure="Choose or save its text model",
        )


def configs_of(config: Any) -> list[Any]:  # noqa: ANN401 - transformers is untyped
    """Return every config that states the sizes of the encoder: its own, and T5Gemma's inner one."""
    return [config, config.encoder] if config.model_type == "t5gemma" else [config]


def keep_in_config(config: Any, kept: Sequence[int]) -> None:  # noqa: ANN401 - transformers is untyped
    """Let a config state that a model has only the layers ``kept``, which are counted from 0."""
    config.num_hidden_layers = len(kept)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[place] for place in kept]


def encoder_only(config: Any, loader: Any) -> None:  # noqa: ANN401 - transformers is untyped
    """Let the config of an encoder-decoder describe its encoder alone, in place, unless all of it is loaded."""
    if config.model_type not in WITH_DECODER or loader is AutoModelForSeq2SeqLM:
        return
    config.is_encoder_decoder = False
    for inner in configs_of(config)[1:]:
        for name in OF_ENCODER:
            setattr(config, name, getattr(inner, name))


def encoder_of(backbone: Any) -> Any:  # noqa: ANN401 - transformers is untyped
    """Return what makes states of texts: a backbone, or the encoder of one with a decoder."""
    return backbone.get_encoder() if is_whole(backbone.config) else backbone


def is_whole(config: Any) -> bool:  # noqa: ANN401 - transformers is untyped
    """Whether a config is of an encoder-decoder with its decoder."""
    return bool(getattr(config, "is_encoder_decoder", False))


def start_of(config: Any, path: str) -> int:  # noqa: ANN401 - transformers is untyped
    """Return the entry that an answer starts with.

    Raises:
        UserError: If the config does not say.
    """
    start: int | None = getattr(config, "decoder_start_token_id", None)
    if start is None:
        raise UserError(
            path, "does not say which token an answer starts with",
            cure="Set decoder_start_token_id in its config.json",
        )  # fmt: skip
    return start


def look(config: Any, *, causal: bool) -> Any:  # noqa: ANN401 - transformers is untyped
    """Return the config with attention that is causal or not; transformers masks by it, and exports keep it.

    Gemma has a switch of its own, which halves the window for each side, and only where a config is made anew.
    """
    if config.model_type.startswith("gemma3"):  # those before know the key and do not obey it
        stated = config.to_dict()
        return type(config)(**stated | {"use_bidirectional_attention": not causal})
    config.is_causal = causal
    return config


def to_encoder(config: Any, attention: str) -> str | dict[str, str]:  # noqa: ANN401 - transformers is untyped
    """Return how transformers is asked for an attention, where it would warn of a decoder that is not there."""
    inner = configs_of(config)[1:]
    return {"": attention, "encoder": attention} if inner else attention


def hand_on_positions(old: Any, new: Any) -> None:  # noqa: ANN401 - layers of transformers
    """Give the table of relative positions that T5's first layer has for all to the layer that becomes the first."""
    of_old, of_new = (
        next(
            (part for part in layer.modules() if hasattr(part, "has_relative_attention_bias")), None
        )
        for layer in (old, new)
    )
    if of_old is None or of_new is None or of_new.has_relative_attention_bias:
        return  # UMT5 has one in each layer, other families none
    table: nn.Module = of_old.relative_attention_bias
    of_new.relative_attention_bias, of_new.has_relative_attention_bias = table, True
